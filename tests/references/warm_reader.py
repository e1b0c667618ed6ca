"""Readers of files that came from elsewhere, in processes of their own that need not import torch first.

As a program: reads a JSON line ``[module, path, out]``, calls the module's ``main`` in a process that is forked from
this one, which has imported everything, and answers with a line ``[exit code, what it printed]``.
"""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.conftest import ROOT


class WarmReaders:
    """Stands where `distributed_dd.data.confined` has ``subprocess``: the same readers, limits and answers.

    Deadlines are not kept: who tests them wants a real one.
    """

    TimeoutExpired, DEVNULL = subprocess.TimeoutExpired, subprocess.DEVNULL

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.references.warm_reader"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )

    def run(self, command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        """What the child of ``[module, path, out]`` ends with."""
        print(json.dumps(list(command)), file=self.process.stdin, flush=True)
        code, printed = json.loads(self.process.stdout.readline())
        return subprocess.CompletedProcess(command, code, printed.encode(), b"")

    @staticmethod
    def child_python(module: str, arguments: Sequence[str]) -> list[str]:
        return [module, *arguments]

    def stop(self) -> None:
        self.process.communicate()


def _in_a_fork(module: str, path: str, out: str) -> tuple[int, str]:
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        printed, code = io.StringIO(), 1
        try:
            with contextlib.redirect_stdout(printed):
                code = importlib.import_module(module).main(path, out)
            os.write(write, printed.getvalue().encode())  # one line of some hundred characters: a pipe holds it
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as file:
        printed_there = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), printed_there


if __name__ == "__main__":
    for reader in ("distributed_dd.trajectories.foreign", "distributed_dd.data.matlab", "scipy.io"):
        importlib.import_module(reader)
    for line in sys.stdin:
        print(json.dumps(_in_a_fork(*json.loads(line))), flush=True)
