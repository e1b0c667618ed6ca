"""Interrupts, from the keyboard or of a scheduler, told from errors. Standard library only.

An interrupt is an exception that Python raises wherever it happens to be. A library may be there that makes another
error of it (safetensors: "could not determine the shape"), or swallows it (a callback). So that one came is
remembered here.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOBODYS = (signal.SIG_DFL, signal.default_int_handler)
"""What Python itself has set for signals."""

_came = False


def listen() -> None:
    """From now on the keyboard and schedulers interrupt this program in one way; for its main thread."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


@contextmanager
def listening() -> Iterator[None]:
    """`listen` while the body runs, in a program of somebody else.

    What it has set for a signal of its own stays. Elsewhere than in the main thread, which alone hears signals,
    nothing is done.
    """
    global _came
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS} if in_main_thread else {}
    unset = {number: handler for number, handler in before.items() if handler in NOBODYS}
    try:
        for number in unset:
            signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in unset.items():
            signal.signal(number, handler)
        if unset:
            _came = False  # it was this body's: the next one begins anew


def _interrupt(number: int, frame: object) -> None:
    global _came
    _came = True
    raise KeyboardInterrupt


def raise_if_swallowed() -> None:
    """Between two steps: interrupt, if an interrupt came that did not get here.

    Raises:
        KeyboardInterrupt: one came.
    """
    if _came:
        raise KeyboardInterrupt


@contextmanager
def told_from_errors() -> Iterator[None]:
    """Have errors that pass after an interrupt be that interrupt.

    Raises:
        KeyboardInterrupt: for an error that passed after one came.
    """
    try:
        yield
    except Exception as error:
        if _came:
            raise KeyboardInterrupt from error
        raise
