"""A real head of Ray with a token, and `ray job submit` to it."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT

TOKEN = "0123456789abcdef" * 4


def free_ports(count):
    """Ports of the loopback that nobody has just now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


class Head:
    """A Ray on the loopback, in a process group of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        gcs, dashboard, client, agent = free_ports(4)
        self.address, self.environment = f"http://127.0.0.1:{dashboard}", environment
        self.log = folder / "log"
        command = [
            "ray",
            "start",
            "--head",
            "--block",
            "--node-ip-address=127.0.0.1",
            "--dashboard-host=127.0.0.1",
            f"--port={gcs}",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}",
            f"--dashboard-agent-listen-port={agent}",
            f"--temp-dir={folder}",
            "--num-cpus=2",
            "--object-store-memory=100000000",
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        deadline = time.monotonic() + 240
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            try:
                if self.status(TOKEN) == 200:
                    return
            except OSError:
                pass
            time.sleep(0.3)

    def status(self, token: str | None) -> int:
        """What the job interface answers to a bearer of this."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def job(self, *arguments: str, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["ray", "job", arguments[0], "--address", self.address, *arguments[1:]],
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=500,
            cwd=ROOT,
        )

    def stop(self) -> None:
        """End it and all that came of it, by their numbers."""
        family: list[psutil.Process] = []
        try:
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.terminate()
            self.process.wait(timeout=20)
            _, family = psutil.wait_procs(family, timeout=5)
        except (psutil.NoSuchProcess, subprocess.TimeoutExpired):
            self.process.kill()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def head(tmp_path):
    # Not under tmp_path: the paths of Ray's sockets have at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="dd-", dir="/tmp"))
    token = tmp_path / "token"
    token.write_text(TOKEN)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    started = Head(folder, environment)
    try:
        started.wait()
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


SHIPPED = ["--working-dir", ".", "--runtime-env", "launch/runtime_env.yaml", "--"]


def test_jobs(head, tiny_yaml, tmp_path):
    """One head for all of it, as starting it takes longer than each part.

    Catches: an open interface; a runtime environment without the code or with the data; results lost with the
    working directory; a failed run that looks done.
    """
    assert head.status(None) == 401 and head.status("f" * 64) in (401, 403)
    stranger = head.job("list", RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"))
    assert stranger.returncode != 0

    experts = head.job("submit", *SHIPPED, "distributed-dd", "experts", str(tiny_yaml))
    assert experts.returncode == 0, experts.stdout + experts.stderr
    assert "2 trained, 0 reused" in experts.stdout

    show = "import distributed_dd, os; print(distributed_dd.__file__, sorted(os.listdir()))"
    lines = f'python -c "{show}" && distributed-dd distill {tiny_yaml} && distributed-dd run {tiny_yaml} sed=1'
    failed = head.job("submit", *SHIPPED, "bash", "-c", lines)
    said = failed.stdout + failed.stderr
    assert "0 trained, 2 reused" in said, said
    assert list((tmp_path / "runs").glob("digits-*/distilled/distilled.safetensors"))
    assert failed.returncode != 0 and "did you mean 'seed'" in said and "exit code 2" in said
    told = next(line for line in said.splitlines() if "__init__.py [" in line)
    assert "runtime_resources/working_dir_files" in told, "the code must be what was sent"
    assert "'configs'" in told and "'launch'" in told
    for left_out in ("'docs'", "'tests'", "'runs'", "'.git'", "'data'"):
        assert left_out not in told
