"""One process at a time works in a folder, also on a disk that has no locks."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from distributed_dd.cli import main
from distributed_dd.errors import LockedError, UserError
from distributed_dd.locks import NAME, locked, locked_when_free
from tests.conftest import ROOT

NO_LOCKS = """
import errno, fcntl, os, sys
def flock(file, operation):
    raise OSError({number}, os.strerror({number}))
if {number}:
    fcntl.flock = flock
"""
HOLD = """
from pathlib import Path
from distributed_dd.locks import locked
with locked(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    sys.stdin.read()
"""
KINDS = [0, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]


@pytest.fixture(params=KINDS, ids=lambda number: errno.errorcode.get(number, "locks"))
def disk(request, tmp_path, monkeypatch):
    """A folder on a disk with locks, or on one that answers with this error; how another process takes it."""
    number = request.param
    if number:

        def flock(file, operation):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)
    code = NO_LOCKS.format(number=number) + HOLD

    def other():
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    return tmp_path, other, number


def test_a_folder_is_held_by_one_and_goes_with_its_process(disk, recwarn):
    folder, other, number = disk
    holder = other()
    with pytest.raises(LockedError) as raised, locked(folder, "run"):
        pass
    assert (f"process {holder.pid} on" in str(raised.value)) == bool(number), "a disk without locks names the holder"
    assert (f"delete {folder / NAME}.holder" in raised.value.fix) == bool(number)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    for _ in range(2):
        with locked(folder, "run"):
            pass
    assert not [warning for warning in recwarn if "flock" in str(warning.message)]


def test_a_process_that_waits_gets_the_folder_when_the_other_ends(disk):
    folder, other, _ = disk
    holder, said = other(), []

    def say(line):
        said.append(line)
        holder.communicate("")

    with locked_when_free(folder, "run", say):
        assert holder.poll() == 0
    assert len(said) == 1 and str(folder) in said[0]


def test_a_run_on_a_disk_without_locks_ends_as_elsewhere_and_can_be_begun_anew(tiny_yaml, tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    here = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
    assert main(["run", str(tiny_yaml), *here]) == 0
    assert main(["run", str(tiny_yaml), "resume=never", *here]) == 0
    runs = [path.parent.name for path in (tmp_path / "runs").glob("digits-*/report.json")]
    assert len(runs) == 2, "the one before is kept aside"


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_lock_is_named_and_left_alone(tmp_path, kind):
    target = tmp_path / "target"
    target.write_text("precious")
    lock = tmp_path / NAME
    if kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(target)
    with pytest.raises(UserError) as raised, locked(tmp_path, "run"):
        pass
    assert raised.value.where == str(lock) and "move" in raised.value.fix
    assert target.read_text() == "precious"
