"""Things killed at random while experts train: the store's content must not depend on it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.test_expert_factory import content, store_in, trained

NUM_EXPERTS, NUM_KILLS = 20, 25
SETTINGS = [
    f"experts.num_experts={NUM_EXPERTS}",
    "experts.num_epochs=60",
    "experts.batch_size=32",
    "experts.save_every=0.3",
    "network={kind: convnet, depth: 2, width: 16}",
    "experts.optimizer={kind: gsam, learning_rate: 0.02, momentum: 0.9}",
]
FAST_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


class Victims:
    """A driver, and a Ray of one head and two nodes that it runs its tasks on."""

    def __init__(self, yaml: Path, output: Path, log: Path) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]
        self.command = [
            sys.executable, "-m", "distributed_dd", "experts", str(yaml), f"output={output}", *SETTINGS
        ]  # fmt: skip
        self.log = open(log, "ab")  # noqa: SIM115 - as long as the object lives
        self.start_driver()

    def start_driver(self) -> None:
        environment = {**os.environ, "RAY_ADDRESS": self.cluster.address}
        self.driver = subprocess.Popen(
            self.command, env=environment, stdout=self.log, stderr=subprocess.STDOUT
        )

    def kill_driver(self) -> bool:
        self.driver.kill()
        self.driver.wait()
        self.start_driver()
        return True

    def kill_worker(self) -> bool:
        """A process that has a task at hand."""
        busy = [pid for pid, title in processes() if title.startswith("ray::_in_worker")]
        for pid in random.sample(busy, min(1, len(busy))):
            os.kill(pid, signal.SIGKILL)
        return bool(busy)

    def kill_raylet(self) -> bool:
        """The raylet alone; its workers find out themselves."""
        node = self.nodes.pop(0)
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        self.nodes.append(self.cluster.add_node(num_cpus=1))
        return True

    def kill_node(self) -> bool:
        """A raylet with its workers, and a new node in its place."""
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1))
        return True

    def end(self) -> None:
        self.driver.kill()
        self.cluster.shutdown()
        self.log.close()


def processes() -> list[tuple[int, str]]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace")))
            except OSError:
                continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [0])
def test_killing_things_at_random_never_changes_the_store(tiny_yaml, tmp_path, monkeypatch, seed):
    for name, value in FAST_HEALTH_CHECKS.items():
        monkeypatch.setenv(name, value)
    undisturbed = trained(tiny_yaml, tmp_path / "whole", *SETTINGS)
    chance, killed = random.Random(seed), []
    victims = Victims(tiny_yaml, tmp_path / "chaos", tmp_path / "driver.log")
    try:
        deadline = time.monotonic() + 1200
        while victims.driver.poll() != 0:
            said = (tmp_path / "driver.log").read_text()[-2000:]
            assert time.monotonic() < deadline, said
            if len(killed) < NUM_KILLS:
                kind = chance.choice(["worker", "worker", "driver", "raylet", "node"])
                time.sleep(chance.uniform(0.5, 5) + (8 if kind == "driver" else 0))
                if victims.driver.poll() is None and getattr(victims, f"kill_{kind}")():
                    killed.append(kind)
            elif victims.driver.poll() is not None:
                assert victims.driver.returncode == 0, said
            time.sleep(0.1)
            if victims.driver.poll() not in (None, 0):
                victims.start_driver()
    finally:
        victims.end()
    print(f"killed: {' '.join(killed)}")
    assert len(killed) >= 5, f"only {killed} were killed: make the experts longer"
    assert content(tmp_path / "chaos") == undisturbed
    # A worker whose driver was killed may have saved once more after the end; the next command clears that.
    assert trained(tiny_yaml, tmp_path / "chaos", *SETTINGS) == undisturbed
    manifest = json.loads((store_in(tmp_path / "chaos") / "manifest.json").read_text())
    assert [entry["expert"] for entry in manifest["experts"]] == list(range(NUM_EXPERTS))
    assert len({entry["sha256"] for entry in manifest["experts"]}) == NUM_EXPERTS
    assert not list(store_in(tmp_path / "chaos").glob("*.part-*"))
