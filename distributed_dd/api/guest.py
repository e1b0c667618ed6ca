"""The work of a verb in a process of somebody else, such as a notebook, which is left as it was."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from distributed_dd import interrupts
from distributed_dd.allocator import keep_freed_memory


@contextmanager
def as_a_guest() -> Iterator[None]:
    """Signals, loggers and the number of torch's threads are afterwards what they were before.

    While the body runs an interrupt is handled as the command line does it: the tracker hears of it, and the same call
    goes on from what was saved. What stays is memory that was freed, which the process keeps for the next call, and a
    local Ray, where one was started.

    Raises:
        KeyboardInterrupt: an interrupt or SIGTERM came.
    """
    keep_freed_memory()
    threads = torch.get_num_threads()
    try:
        with _loggers_as_they_are(), interrupts.listening(), interrupts.told_from_errors():
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _loggers_as_they_are() -> Iterator[None]:
    """Put back what libraries, and we for them, do to loggers that are there."""
    entries = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    known = [entry for entry in entries if isinstance(entry, logging.Logger)]  # others are places of loggers below
    before = [(one, one.level, one.propagate, one.disabled, [*one.handlers]) for one in known]
    disabled = logging.root.manager.disable
    try:
        yield
    finally:
        logging.disable(disabled)
        for one, level, propagate, was_disabled, handlers in before:
            one.setLevel(level)
            one.propagate, one.disabled, one.handlers = propagate, was_disabled, handlers
