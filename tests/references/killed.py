"""Run as a program: a command in processes that kill themselves at chosen writes, and are begun again.

The processes are forked from one that has imported everything, so that each costs no more than its work. Takes one
JSON object as argument: ``arguments`` of the command, ``folder`` for the outputs, ``plans`` of lists of kills, of which
each is [number of the write, moment]; prints a JSON line for every plan.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed_dd import durable
from distributed_dd.cli import main

MOMENTS = ("before", "half", "unnamed", "after")
"""Nothing is written yet; half of it; all of it under a temporary name; all of it."""
Kill = tuple[int, str]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killing:
    """Counts the writes of this process, and kills it at one."""

    def __init__(self, kill: Kill | None) -> None:
        self.count = 0
        self.at, self.moment = kill or (0, "")
        self.write, self.append, self.replace = durable._write, durable.append_text, os.replace

    def of_file(self, path: Path, pieces: Any, num_bytes: int | None, private: bool) -> None:
        """A file that is written whole, or not at all."""
        with self._counted() as at:
            if at("half"):
                pieces = self._half(pieces)
            if at("unnamed"):
                os.replace = lambda *_: die()
            self.write(path, pieces, num_bytes, private)

    def of_line(self, path: Path, text: str, private: bool = False) -> None:
        """A line that is appended."""
        with self._counted() as at:
            if at("half") or at("unnamed"):
                self.append(path, text[: len(text) // 2], private)
                die()
            self.append(path, text, private)

    @staticmethod
    def _half(pieces: Any) -> Any:
        content = b"".join(pieces)
        yield content[: len(content) // 2]
        die()

    def _counted(self) -> "_Write":
        self.count += 1
        return _Write(self.count == self.at, self.moment)


class _Write:
    def __init__(self, here: bool, moment: str) -> None:
        self.here, self.moment = here, moment

    def __enter__(self) -> Any:
        if self.here and self.moment == "before":
            die()
        return lambda moment: self.here and self.moment == moment

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self.here and kind is None:
            die()


def forked(arguments: Sequence[str], kill: Kill | None, said: Path) -> tuple[int, int]:
    """The command in a process of its own: its exit code (-9 if it was killed), and how often it wrote."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            killing = Killing(kill)
            durable._write = killing.of_file
            for module in [*sys.modules.values()]:
                if getattr(module, "append_text", None) is killing.append:
                    module.append_text = killing.of_line
            code = main(list(arguments))
            os.write(write, str(killing.count).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(write)
    _, status = os.waitpid(process, 0)
    with os.fdopen(read) as file:
        return os.waitstatus_to_exitcode(status), int(file.read() or 0)


def tell(arguments: Sequence[str], folder: Path, plans: Sequence[Sequence[Kill]]) -> None:
    """Do every plan in a folder of its own; after its kills the command ends by itself."""
    import distributed_dd.commands.run
    import distributed_dd.tracking  # noqa: F401

    for number, plan in enumerate(plans):
        output, said = folder / str(number), folder / f"{number}.log"
        codes = [forked([*arguments, f"output={output}"], kill, said)[0] for kill in plan]
        code, count = forked([*arguments, f"output={output}"], None, said)
        line = {"output": str(output), "codes": [*codes, code], "writes": count, "said": said.read_text()[-3000:]}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    tell(asked["arguments"], Path(asked["folder"]), asked["plans"])
