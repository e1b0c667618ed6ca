"""An hour on a machine with a GPU, in one command: tests, measurements, a real run, and a record of them.

    python launch/gpu_session.py --minutes 55 --to DEVICE_RECORD configs/cifar10/datm_ipc1.yaml data.root=DATA

Parts go in order of value. The record is written after each; what is done is not done again by the same command, a
run that was cut goes on. Neither Ray nor DeepSpeed nor MLflow is needed: a part that wants one says so and the others
go on.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distributed_dd.bench.session_record import FAILED, PASSED, STOPPED, Part, finished_before, write_record
from distributed_dd.outer.environment import environment

CHECKOUT = Path(__file__).resolve().parents[2]
BENCHES = ("machine", "unroll", "experts", "evaluation", "generator", "kernel", "sharded")
SECONDS_TO_END = 60.0
"""How long a part may take to save itself when its time is up."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """What is to be done, where its record goes, and until when.

    Attributes:
        deadline: of the monotonic clock.
    """

    folder: Path
    deadline: float
    quick: bool
    run: tuple[str, ...]

    def commands(self) -> dict[str, list[str]]:
        """The command of each part, by its name."""
        verb = [sys.executable, "-m", "distributed_dd"]
        tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "tests/gpu", "-rs"]
        quick = ["--quick"] if self.quick else []
        here = [f"output={self.folder / 'runs'}", "tracker=none", "--on", "configs/clusters/in_process.yaml"]
        return {
            "tests": [*tests, f"--junitxml={self.folder / 'tests.xml'}"],
            **{f"bench {what}": [*verb, "bench", what, "--json", *quick] for what in BENCHES},
            "run": [*verb, "run", *self.run, *here],
        }

    def part(self, name: str, command: Sequence[str]) -> Part:
        """Do one part, unless it was done or no time is left."""
        if (before := finished_before(self.folder, name, command)) is not None:
            return before
        stem = name.replace(" ", "-")
        started = time.monotonic()
        with open(self.folder / f"{stem}.out", "wb") as out, open(self.folder / f"{stem}.err", "wb") as err:
            process = subprocess.Popen(command, cwd=CHECKOUT, stdout=out, stderr=err, start_new_session=True)
            try:
                code = process.wait(max(0.0, self.deadline - started))
                status = PASSED if code == 0 else FAILED
            except subprocess.TimeoutExpired:
                code, status = None, STOPPED
            finally:
                _end(process)
        return Part.of(self.folder, name, command, status=status, code=code, seconds=time.monotonic() - started)


def _end(process: subprocess.Popen) -> None:
    """Ask a part that is still there to save itself, then end all that it started."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is missing; 0 if every part passed, 1 otherwise."""
    options = _parser().parse_intermixed_args(arguments)
    folder = options.to.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    small = ("configs/digits/dm_ipc1.yaml", "num_outer_steps=20", "evaluate.every=20", "evaluate.num_networks=2")
    session = Session(
        folder=folder,
        deadline=time.monotonic() + 60 * options.minutes,
        quick=options.quick,
        run=tuple(options.run) or (*small, "evaluate.num_epochs=20", "evaluate.num_epochs_full_data=2"),
    )
    commands = session.commands()
    if unknown := {*options.only} - {*commands}:
        print(f"error: --only: no part {', '.join(sorted(unknown))}\n  allowed: {', '.join(commands)}", file=sys.stderr)
        return 2
    machine, parts = environment(), []
    for name, command in commands.items():
        if options.only and name not in options.only:
            continue
        print(f"{name} ..", flush=True)
        parts.append(session.part(name, command))
        print(f"{name}: {parts[-1].summary()}", flush=True)
        write_record(folder, machine, parts)
    print(f"record: {folder / 'README.md'}")
    return int(any(part.status != PASSED for part in parts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu_session.py", description="tests, measurements and a run on this machine")
    parser.add_argument("--to", type=Path, default=Path("gpu-session"), metavar="FOLDER", help="where the record goes")
    parser.add_argument("--minutes", type=float, default=55.0, help="a part that is not done by then is stopped")
    parser.add_argument("--quick", action="store_true", help="small sizes: minutes on a CPU")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="this part alone; may repeat")
    parser.add_argument(
        "run", nargs="*", metavar="FILE key=value", help="the real run (default: a small one on digits)"
    )
    return parser
