"""Things killed at random while experts train: the store's content must not depend on it."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.test_expert_factory import content, store_in, trained

FAST_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def settings_for(num_experts: int, num_epochs: int) -> list[str]:
    """Experts of some seconds, saved often."""
    return [
        f"experts.num_experts={num_experts}",
        f"experts.num_epochs={num_epochs}",
        "experts.batch_size=32",
        "experts.save_every=0.3",
        "network={kind: convnet, depth: 2, width: 16}",
        "experts.optimizer={kind: gsam, learning_rate: 0.02, momentum: 0.9}",
    ]


class Victims:
    """A driver, and a Ray of one head and two nodes that it runs its tasks on."""

    def __init__(self, yaml: Path, output: Path, log: Path, settings: list[str]) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]
        self.command = [sys.executable, "-m", "distributed_dd", "experts", str(yaml), f"output={output}", *settings]
        self.log = open(log, "ab")  # noqa: SIM115 - as long as the object lives
        self.start_driver()

    def start_driver(self) -> None:
        environment = {**os.environ, "RAY_ADDRESS": self.cluster.address}
        self.driver = subprocess.Popen(self.command, env=environment, stdout=self.log, stderr=subprocess.STDOUT)

    def kill_driver(self) -> bool:
        self.driver.kill()
        self.driver.wait()
        self.start_driver()
        return True

    def kill_worker(self) -> bool:
        """A process of this Ray that has a task at hand."""
        raylets = {node.all_processes["raylet"][0].process.pid for node in self.nodes}
        tasks = [(pid, parent) for pid, title, parent in processes() if title.startswith("ray::_in_worker")]
        busy = [pid for pid, parent in tasks if parent in raylets]
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


def processes() -> list[tuple[int, str, int]]:
    """Number, title and parent of every process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes().decode(errors="replace")
                parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
                found.append((int(entry.name), title, int(parent)))
            except OSError:
                continue
    return found


def chaos(
    yaml: Path, folder: Path, settings: list[str], kills: Iterator[str], most: int, longest_pause: float
) -> list[str]:
    """Train while things are killed, at most ``most`` of them; returns what was."""
    killed: list[str] = []
    kind = next(kills)
    log = folder / "driver.log"
    victims = Victims(yaml, folder / "chaos", log, settings)
    try:
        deadline = time.monotonic() + 1200
        while victims.driver.poll() != 0:
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            if victims.driver.poll() is not None:
                assert len(killed) < most, log.read_text()[-2000:]
                victims.start_driver()
            saved = list((folder / "chaos").glob("experts/*/*.part-*"))
            if saved and len(killed) < most and getattr(victims, f"kill_{kind}")():
                killed.append(kind)
                kind = next(kills)
                time.sleep(random.uniform(0.1, longest_pause))
            time.sleep(0.1)
    finally:
        victims.end()
    return killed


def check(yaml: Path, folder: Path, settings: list[str], undisturbed: str, count: int) -> None:
    """Exactly ``count`` distinct experts, with the same bits as without kills."""
    assert content(folder / "chaos") == undisturbed
    # A worker whose driver was killed may have saved once more after the end; the next command clears that.
    assert trained(yaml, folder / "chaos", *settings) == undisturbed
    manifest = json.loads((store_in(folder / "chaos") / "manifest.json").read_text())
    assert [entry["expert"] for entry in manifest["experts"]] == list(range(count))
    assert len({entry["sha256"] for entry in manifest["experts"]}) == count
    assert not list(store_in(folder / "chaos").glob("*.part-*"))


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_node_change_nothing(tiny_yaml, tmp_path, monkeypatch):
    for name, value in FAST_HEALTH_CHECKS.items():
        monkeypatch.setenv(name, value)
    settings = settings_for(num_experts=4, num_epochs=60)
    undisturbed = trained(tiny_yaml, tmp_path / "whole", *settings)
    killed = chaos(tiny_yaml, tmp_path, settings, itertools.cycle(["worker", "node"]), 2, 0.3)
    assert sorted(killed) == ["node", "worker"]
    check(tiny_yaml, tmp_path, settings, undisturbed, 4)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killing_things_at_random_never_changes_the_store(tiny_yaml, tmp_path, monkeypatch, seed):
    for name, value in FAST_HEALTH_CHECKS.items():
        monkeypatch.setenv(name, value)
    settings = settings_for(num_experts=20, num_epochs=60)
    undisturbed = trained(tiny_yaml, tmp_path / "whole", *settings)
    chance = random.Random(seed)
    kinds = (chance.choice(["worker", "worker", "worker", "driver", "raylet", "node"]) for _ in itertools.count())
    started = time.monotonic()
    killed = chaos(tiny_yaml, tmp_path, settings, kinds, 20, 5.0)
    print(f"killed in {time.monotonic() - started:.0f} s: {' '.join(killed)}")
    assert len(killed) >= 5, f"only {killed} were killed: make the experts longer"
    check(tiny_yaml, tmp_path, settings, undisturbed, 20)
