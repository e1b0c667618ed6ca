"""What is left of a gang after a death: the newest step that the survivors hold everything of, written as shards."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from distributed_dd.outer.checkpoint import Shard
from distributed_dd.outer.spares import Spared, newest_of_all

GROUP = "spares"
"""Ray runs these calls beside what a rank computes: one that waits for a dead rank still answers."""
SECONDS_TO_ANSWER = 10.0
SECONDS_TO_WRITE = 120.0


def salvaged(actors: Sequence[Any], newest: int) -> Spared | None:
    """Have the survivors write the newest step after ``newest`` that they hold everything of; None if there is none.

    A survivor that does not answer counts as lost. Never raises what Ray raises.
    """
    asked = [actor.spare_steps.options(concurrency_group=GROUP).remote() for actor in actors]
    steps = _answers(asked, SECONDS_TO_ANSWER)
    for step in newest_of_all(list(steps.values()), len(actors)):
        if step > newest and (spared := _written(actors, steps, step)) is not None:
            return spared
    return None


def _written(actors: Sequence[Any], steps: Mapping[int, Mapping[int, Sequence[int]]], step: int) -> Spared | None:
    """Everything of one step on disk, each rank's part by whoever holds it; None if a holder fails meanwhile."""
    holders = {
        rank: [holder for holder, held in steps.items() if step in held.get(rank, ())] for rank in range(len(actors))
    }
    # A rank's own copy first: so every survivor writes its own part.
    first = {rank: rank if rank in held else held[0] for rank, held in holders.items()}
    shards, measured = _of_holders(actors, first, step)
    missing = {rank: holders[rank] for rank in first if rank not in shards}
    second = {
        rank: next(holder for holder in held if holder != first[rank]) for rank, held in missing.items() if held[1:]
    }
    more, more_measured = _of_holders(actors, second, step)
    shards |= more
    if len(shards) < len(actors):
        return None
    ordered = [shard for _, shard in sorted(shards.items())]
    return Spared(step, [shard for shard in ordered if shard is not None], measured or more_measured)


def _of_holders(actors: Sequence[Any], holders: Mapping[int, int], step: int) -> tuple[dict[int, Shard | None], Any]:
    """Rank -> its shard, and what was measured, from those that ``holders`` names."""
    asked = {
        rank: actors[holder].write_spare.options(concurrency_group=GROUP).remote(rank, step)
        for rank, holder in holders.items()
    }
    answers = _answers(list(asked.values()), SECONDS_TO_WRITE)
    written = {rank: answers[index] for index, rank in enumerate(asked) if index in answers}
    measured = next((listed for _, listed in written.values()), ())
    return {rank: shard for rank, (shard, _) in written.items()}, measured


def _answers(references: list[Any], seconds: float) -> dict[int, Any]:
    """Index -> answer, of those that came in time and are no errors."""
    import ray

    answered, _ = ray.wait(references, num_returns=len(references), timeout=seconds) if references else ([], [])
    answers = {}
    for reference in answered:
        with contextlib.suppress(Exception):  # it died, or what it held cannot be written
            answers[references.index(reference)] = ray.get(reference)
    return answers
