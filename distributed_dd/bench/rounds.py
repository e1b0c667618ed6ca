"""Sides of a benchmark, each in a process of its own (or several), asked in turn."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

import torch

from distributed_dd.allocator import keep_freed_memory
from distributed_dd.outer.environment import processor

Worker = tuple[SpawnProcess, Connection]
BARRIER_SECONDS = 60.0


class Failed(str):
    """Why a side has no answer; it stands in the side's row."""

    __slots__ = ()

    @classmethod
    def of(cls, error: BaseException) -> "Failed":
        lines = str(error).splitlines()
        return cls(f"{type(error).__name__}: {lines[0] if lines else ''}")


def device_name() -> str:
    """The accelerator's name, or the processor's."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()


def start(context: SpawnContext, function: Callable[..., None], arguments: tuple) -> Worker:
    """A process that runs ``function(pipe, *arguments)``, and our end of the pipe."""
    here, there = context.Pipe()
    process = context.Process(target=function, args=(there, *arguments), daemon=True)
    process.start()
    there.close()  # or the end of a process that died would go unnoticed
    return process, here


def receive(pipe: Connection) -> Any:
    """The next answer; `Failed` where the process has ended, such as for want of memory."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return Failed("its process ended")


def ask(pipe: Connection, question: tuple) -> Any:
    """The answer to one question."""
    with contextlib.suppress(OSError):  # then `receive` says so
        pipe.send(question)
    return receive(pipe)


def ask_all(workers: Sequence[Worker], question: tuple) -> Any:
    """The largest answer of workers that are asked at the same time, or the first failure."""
    send_all(workers, question)
    return receive_all(workers)


def send_all(workers: Sequence[Worker], question: tuple) -> None:
    """Put a question to all workers."""
    for _, pipe in workers:
        with contextlib.suppress(OSError):  # then `receive` says so
            pipe.send(question)


def receive_all(workers: Sequence[Worker]) -> Any:
    """The largest answer, or the first failure."""
    answers = [receive(pipe) for _, pipe in workers]
    failed = [answer for answer in answers if isinstance(answer, Failed)]
    return failed[0] if failed else max(answers)


def stop(workers: Sequence[Worker]) -> None:
    """Let the workers end, and wait for them."""
    for process, pipe in workers:
        with contextlib.suppress(OSError):
            pipe.send(None)
        process.join()


def serve(pipe: Connection, build: Callable[..., Any], threads: int, keep: bool, barrier: Any = None) -> None:
    """Answer the parent's questions until it sends None.

    ("build", arguments): makes ``build(*arguments)`` the side; 0. ("time", name): seconds of one call of that
    method. ("call", name): its result. ("rate", None): `matrix_rate`.

    Args:
        keep: let freed memory be reused, as the program does when it starts.
        barrier: at which the processes of a side meet before what is timed.
    """
    torch.set_num_threads(threads)
    if keep:
        keep_freed_memory()
    side = None
    while (question := pipe.recv()) is not None:
        what, argument = question
        try:
            if what == "build":
                side = build(*argument)
                pipe.send(0)
            elif what == "time":
                if barrier is not None:
                    barrier.wait(BARRIER_SECONDS)
                pipe.send(seconds(getattr(side, argument)))
            else:
                pipe.send(matrix_rate() if what == "rate" else getattr(side, argument)())
        except Exception as error:
            pipe.send(Failed.of(error))


def seconds(step: Callable[[], Any]) -> float:
    """Seconds of one call, the accelerator's work included."""
    synchronize()
    started = time.perf_counter()
    step()
    synchronize()
    return time.perf_counter() - started


def synchronize() -> None:
    """Wait for the accelerator."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_rate(size: int | None = None) -> dict[str, float]:
    """FLOP/s of a product of two square matrices, once warm, in float32 and in bf16.

    The faster of a matrix product and a 1x1 convolution: on some processors the library behind the one is
    twice as fast as that behind the other. On CUDA float32 may become TF32, as in convolutions by default.
    """
    where = "cuda" if torch.cuda.is_available() else "cpu"
    size = size or (8192 if where == "cuda" else 2048)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if where == "cuda" else precision)
    names = {"float32": torch.float32, "bf16": torch.bfloat16}
    rates = {name: 2 * size**3 / _product_seconds(size, where, dtype) for name, dtype in names.items()}
    torch.set_float32_matmul_precision(precision)
    return rates


@torch.no_grad()
def _product_seconds(size: int, where: str, dtype: torch.dtype) -> float:
    a, b, out = (torch.randn(size, size, device=where).to(dtype) for _ in range(3))
    pixels = a.view(-1, size, 16, 16)
    ways = (partial(torch.mm, a, b, out=out), partial(torch.conv2d, pixels, b.view(size, size, 1, 1)))
    for multiply in ways:
        multiply()  # warms up
    return min(seconds(multiply) for multiply in ways)


@dataclass
class Times:
    """Seconds of the first call, which warms up and compiles, and of the rounds; or why there are none."""

    first: float = 0.0
    rounds: list[float] = field(default_factory=list)
    error: Failed | None = None

    def add(self, answer: float | Failed) -> None:
        """Record one more round, or a failure."""
        if isinstance(answer, Failed):
            self.error = answer
        else:
            self.rounds.append(answer)


def timed_rounds(
    sides: Mapping[str, Sequence[Worker]],
    arguments: Mapping[str, tuple],
    rounds: int,
    after_round: Callable[[], None] = lambda: None,
) -> dict[str, Times]:
    """Build all sides, call the ``epoch`` of each once, side after side, then in interleaved rounds."""
    for name, workers in sides.items():
        send_all(workers, ("build", arguments[name]))
    built = {name: receive_all(workers) for name, workers in sides.items()}
    times = {name: _first(workers, built[name]) for name, workers in sides.items()}
    for _ in range(rounds):
        # Side after side within a round: what the neighbours do falls on all alike.
        for name, workers in sides.items():
            if times[name].error is None:
                times[name].add(ask_all(workers, ("time", "epoch")))
        after_round()
    return times


def _first(workers: Sequence[Worker], built: Any) -> Times:
    answer = built if isinstance(built, Failed) else ask_all(workers, ("time", "epoch"))
    return Times(error=answer) if isinstance(answer, Failed) else Times(first=answer)


@contextlib.contextmanager
def cold_compiler() -> Iterator[None]:
    """Processes started in here compile anew: the compiler's cache is an empty, temporary folder."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    kept = os.environ.get(name)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            os.environ.pop(name)
            if kept is not None:
                os.environ[name] = kept
