"""All experts: train those that are missing, each an independent task, and keep their trajectories."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from distributed_dd.family import identity, plain, require
from distributed_dd.learning.networks import Network
from distributed_dd.methods.trajectory_matching.difficulty import ranking
from distributed_dd.methods.trajectory_matching.expert import ExpertJob, Experts, train_expert
from distributed_dd.methods.trajectory_matching.watch import watched
from distributed_dd.outer.ports import Cluster, Progress
from distributed_dd.trajectories.epochs import format_epochs, parse_epochs, same_epoch
from distributed_dd.trajectories.store import TrajectoryStore
from distributed_dd.trajectories.trajectory import check_fits


def store_for(root: str, recipe: Experts, network: Network, data: dict[str, Any], seed: int) -> TrajectoryStore:
    """The store of exactly these experts; their number is no part of its identity."""
    everything = {
        **data,
        "network": {"kind": type(network).__name__.lower(), **plain(network)},
        "recipe": {key: value for key, value in identity(recipe).items() if key != "num_experts"},
        "seed": seed,
    }
    return TrajectoryStore.below(root, everything)


def train_experts(job: ExpertJob, cluster: Cluster, progress: Progress) -> tuple[list[int], int]:
    """Train the experts that are missing or damaged; returns their numbers and the tasks' peak bytes.

    Those stored whole, with all epochs that are needed, are not touched. Of the others the ones that were
    being trained when something was killed go on from their last save.
    """
    store, total, peak = job.store, job.recipe.num_experts, 0
    with store.folder.lock(progress.say):
        for expert in store.damaged(store.records(total)):
            aside = store.set_aside(expert)
            progress.say(
                f"warning: expert {expert} is not what was written (SHA-256 differs): kept as {aside}, and "
                "trained again"
            )
        missing = store.missing(total, lambda record: _covers(job, record))
        if missing:
            store.write_manifest(total)
            job = _planned(job, missing, cluster, progress)
            with watched(store, missing, job.recipe.num_epochs, progress) as watch:
                for index, facts in cluster.map(train_expert, missing, job):
                    watch.finished(missing[index], facts["validation_accuracy"])
                    peak = max(peak, facts["peak_memory_bytes"])
        store.sweep()
        store.write_manifest(total)
    return missing, peak


def _covers(job: ExpertJob, record: Any) -> bool:
    return job.recipe.trajectory.covers(_stored_epochs(job, record), job.needed)


def _stored_epochs(job: ExpertJob, record: Any) -> tuple[float, ...]:
    return parse_epochs(record.get("epochs", f"0-{job.recipe.num_epochs}"))


def _planned(job: ExpertJob, missing: Sequence[int], cluster: Cluster, progress: Progress) -> ExpertJob:
    """The job with the epochs to record: also those that experts trained again hold already."""
    recorded = {*job.recipe.trajectory.recorded(job.recipe.num_epochs, job.needed)}
    short = {e: r for e, r in job.store.records(job.recipe.num_experts).items() if e in set(missing)}
    for record in short.values():
        recorded |= {*_stored_epochs(job, record)}
    if short:
        first = next(iter(short.values()))
        lacking = format_epochs({*map(same_epoch, job.needed)} - {*_stored_epochs(job, first)})
        progress.say(
            f"note: {len(short)} experts were kept without epochs {lacking}, which this run needs: they are "
            "trained again (experts.trajectory.keep_epochs=all keeps every epoch)"
        )
    curriculum = job.recipe.curriculum
    order = ranking(job, cluster, progress) if curriculum.num_scorers else None
    return replace(job, recorded=tuple(sorted(recorded)), easy_to_hard=order)


def summary(store: TrajectoryStore, num_experts: int) -> tuple[str, list[dict[str, Any]]]:
    """One line about the accuracy of the experts, and their records in order."""
    records = [record for _, record in sorted(store.records(num_experts).items())]
    known = [record for record in records if "validation_accuracy" in record]
    if not known:
        return "", records
    values = [100 * record["validation_accuracy"] for record in known]
    if len(values) == 1:
        return f"validation accuracy {values[0]:.1f} % of one expert", records
    mean, spread = statistics.mean(values), statistics.stdev(values)
    lowest = min(known, key=lambda record: record["validation_accuracy"])
    line = (
        f"validation accuracy {mean:.1f} ± {spread:.1f} % over {len(values)} experts, "
        f"lowest {min(values):.1f} % (expert {lowest['expert']}), highest {max(values):.1f} %"
    )
    return line, records


def check_complete(store: TrajectoryStore, num_experts: int) -> None:
    """Refuse a store, named by a person, with fewer experts than are asked for.

    Raises:
        ConfigError: the store holds fewer experts.
    """
    require(
        store.num_experts >= num_experts,
        "experts.num_experts",
        f"{num_experts} are asked for, {store.folder} holds {store.num_experts}",
        f"at most {store.num_experts}",
    )


def verify(store: TrajectoryStore, num_experts: int, num_parameters: int, needed: Sequence[float]) -> None:
    """Open every expert once: checksum, parameters, epochs."""
    for expert in range(num_experts):
        where = f"{store.folder}/{store.name_of(expert)}"
        check_fits(store.open(expert), where, num_parameters, needed)
