"""Interrupts, from the keyboard or of a scheduler, told from errors. Standard library only.

An interrupt is an exception that Python raises wherever it happens to be. A library may be there that makes another
error of it (safetensors: "could not determine the shape"), or swallows it (a callback). So that one came is
remembered here.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_came = False


def listen() -> None:
    """From now on the keyboard and schedulers interrupt this program in one way; for its main thread."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


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
