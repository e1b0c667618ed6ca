"""How fast outer steps are here: a few are made, timed and thrown away."""

import shutil
import time
from collections.abc import Callable, Mapping

from torch import Tensor

from distributed_dd.errors import DivergedError
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.ports import Job, Workers, WorkersLost

MOST_STEPS, MOST_SECONDS = 6, 20.0


def seconds_of_steps(
    start: Mapping[str, Tensor],
    checkpoints: Checkpoints,
    job: Callable[[Checkpoints], Job],
    workers: Callable[[Job], Workers],
    num_outer_steps: int,
) -> list[float]:
    """What outer steps take, each; the first, which also makes ready, is left out. None where they cannot be made.

    Args:
        start: what the first checkpoint holds. checkpoints: in a folder that is removed at the end.
    """
    shutil.rmtree(checkpoints.folder, ignore_errors=True)  # a killed process may have left some
    shard = checkpoints.write_shard(0, 0, 1, 0, dict(start))
    checkpoints.commit(0, {"start": [shard], "best": [], "newest": [shard]}, {})
    crew = workers(job(checkpoints))
    seconds: list[float] = []
    try:
        crew.start()
        for step in range(min(MOST_STEPS, num_outer_steps)):
            begun = time.monotonic()
            for _ in crew.outer_steps(step, step + 1):
                pass
            seconds.append(time.monotonic() - begun)
            if sum(seconds) > MOST_SECONDS:
                break
    except (DivergedError, WorkersLost):
        return []
    finally:
        crew.stop()
        shutil.rmtree(checkpoints.folder, ignore_errors=True)
    return seconds[1:] or seconds
