"""Tasks of which each begins where the one before ended, submitted ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def chained(submit: Callable[[Any, Any], tuple[Any, Any]], tasks: Iterable[Any], ahead: int) -> Iterator[Any]:
    """References of a chain's results in order, with up to ``ahead`` tasks submitted in advance."""
    waiting: deque[Any] = deque()
    remaining, state = iter(tasks), None
    while True:
        while len(waiting) < max(1, ahead) and (task := next(remaining, None)) is not None:
            # One that begins anew need not wait for the one before.
            result, state = submit(task, None if task.begins_anew else state)
            waiting.append(result)
        if not waiting:
            return
        yield waiting.popleft()
