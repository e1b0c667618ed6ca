"""Two ranks as two threads of this process, for small checks of what goes between ranks."""

import threading
from collections.abc import Callable
from typing import Any

from torch import Tensor

from distributed_dd.learning.networks.batch_norm import SummedOverRanks


def over_two(work: Callable[[int, Callable[[Tensor], Tensor]], Any]) -> list[Any]:
    """``work(rank, summed)`` of both; ``summed`` is the differentiable sum over them."""
    barrier, parts, answers = threading.Barrier(2, timeout=20), [None, None], [None, None]

    def of(rank: int) -> None:
        def total(part: Tensor) -> Tensor:
            parts[rank] = part
            barrier.wait()
            found = parts[0] + parts[1]
            barrier.wait()
            return found

        answers[rank] = work(rank, lambda part: SummedOverRanks.apply(part, total))

    threads = [threading.Thread(target=of, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
