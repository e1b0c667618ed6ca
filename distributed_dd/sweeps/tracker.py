"""A sweep as a run of its own in the tracker, beside those of its trials."""

from collections.abc import Callable
from pathlib import Path

from distributed_dd.backends.local.tracker import NoTracker
from distributed_dd.backends.mlflow.description import Description
from distributed_dd.backends.mlflow.tracker import MlflowTracker
from distributed_dd.backends.mlflow.views import sweep_view
from distributed_dd.family import plain
from distributed_dd.methods.names import parameter, rank
from distributed_dd.nested import flattened
from distributed_dd.sweeps.plan import Plan
from distributed_dd.tracking import experiment_name


def tracker_of_sweep(plan: Plan, say: Callable[[str], None]) -> MlflowTracker | NoTracker:
    """The tracker of a sweep's own run, with a view of the trials of each study."""
    sweep = plan.sweep
    base = next(iter(plan.bases.values()))
    if base.tracker == "none":
        return NoTracker()
    tags = {
        "dataset": base.data.name,
        "method": base.method.name,
        "role": "sweep",
        "images_per_class": ", ".join(map(str, plan.bases)),
        "sweep_folder": plan.folder.name,
    }
    parameters = {key: value for key, value in flattened(plain(sweep)) if value is not None}
    description = Description(
        experiment=experiment_name(base),
        name=f"sweep {plan.folder.name}",
        parameters=parameters,
        tags=tags,
    )
    place = Path(base.output) / "mlflow.db", plan.folder / "tracker.json"
    tracker = MlflowTracker(*place, description, say)
    values = plan.values(next(iter(plan.bases)))
    varied = plan.space.settings(plan.space.probes(values, sweep.seed)[0], values)
    for size, own in plan.bases.items():
        rungs = sweep.rungs(own.num_outer_steps)
        names = [parameter(key) for key in sorted(varied, key=rank)]
        tracker.view(sweep_view(plan.folder.name, size, names, rungs[0], own.method.words))
    return tracker
