"""Experts on Ray into an object store that speaks S3, on this machine."""

import os
import subprocess
import sys
import time

import pytest

from distributed_dd.trajectories.folder import folder_at
from distributed_dd.trajectories.store import TrajectoryStore
from tests.end_to_end.test_expert_factory import SLOW, trained


@pytest.mark.slow
def test_experts_go_to_the_bucket_and_a_killed_driver_loses_nothing(tiny_yaml, tmp_path, bucket):
    undisturbed = trained(tiny_yaml, tmp_path / "here", *SLOW)
    command = [
        sys.executable,
        "-m",
        "distributed_dd",
        "experts",
        str(tiny_yaml),
        *SLOW,
        f"experts.storage={bucket}/experts",
        f"output={tmp_path / 'there'}",
    ]
    (name,) = [path.name for path in (tmp_path / "here" / "experts").iterdir()]
    folder = folder_at(f"{bucket}/experts/{name}")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 480
    while not any(".part-" in entry for entry in folder.names()) and process.poll() is None:
        assert time.monotonic() < deadline, "never got there"
        time.sleep(0.05)
    assert process.poll() is None, "finished before it could be killed"
    process.kill()
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    store = TrajectoryStore.at(str(folder))
    assert store.content_sha256 == undisturbed and store.damaged(range(3)) == []
    assert not any(".part-" in entry for entry in folder.names())
    assert not (tmp_path / "there" / "experts").exists()


def test_a_bucket_that_cannot_be_reached_is_one_error(tiny_yaml, bucket, capsys):
    from distributed_dd.cli import main

    assert main(["experts", str(tiny_yaml), "experts.storage=s3://no-such-bucket/experts"]) == 1
    error = capsys.readouterr().err
    assert "s3://no-such-bucket/experts" in error and "Traceback" not in error and "sesame" not in error
