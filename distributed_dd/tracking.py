"""Trackers of an experiment: of its run, and of the runs that make what it shares with others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed_dd.backends.local.tracker import NoTracker
from distributed_dd.backends.mlflow.description import Description, read_tracked
from distributed_dd.backends.mlflow.replay import replay
from distributed_dd.backends.mlflow.tracker import MlflowTracker
from distributed_dd.backends.mlflow.views import runs_view, shared_view
from distributed_dd.data import Splits
from distributed_dd.errors import UserError
from distributed_dd.experiment import Experiment, values_of
from distributed_dd.methods.names import headline
from distributed_dd.nested import flattened
from distributed_dd.outer.environment import commit
from distributed_dd.outer.prelude import SharedRun
from distributed_dd.outer.run_folder import RunFolder
from distributed_dd.places import name_in_path

CHIEF = (
    "images_per_class",
    "num_outer_steps",
    "seed",
    "data.kind",
    "preprocessing.kind",
    "network.kind",
    "network.depth",
    "network.width",
    "method.kind",
    "set.form.kind",
    "evaluate.num_epochs",
)
"""Fields of a configuration that stand in a tracker's table whatever the method; its own are its `Words.parameters`."""


@dataclass(frozen=True)
class Tracking:
    """Opens trackers.

    Attributes:
        engine: what makes the outer steps, as a person calls it. say: called once if a tracker fails.
    """

    experiment: Experiment
    splits: Splits
    engine: str
    say: Callable[[str], None]

    def of_run(self, folder: RunFolder, name: str, tags: Mapping[str, str]) -> MlflowTracker | NoTracker:
        """The tracker of the run in ``folder``; ``tags`` are added to those that every run has."""
        e, splits, words = self.experiment, self.splits, self.experiment.method.words
        if e.tracker == "none":
            return NoTracker()
        values = values_of(e)
        tags = {
            **self._tags,
            "method": e.method.name,
            "images_per_class": str(e.images_per_class),
            "run_folder": name,
            "config_digest": folder.checkpoints.config_digest,
            "role": "run",
            **tags,
        }
        dataset = {
            "name": splits.name,
            "sha256": splits.sha256,
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        }
        description = Description(
            experiment=self._under,
            name=name,
            parameters=dict(flattened(values)) | headline(values) if tags["role"] == "trial" else chief(values),
            tags=tags,
            dataset=dataset,
            loss=next(iter(words.losses)),
            picture=words.picture,
        )
        tracker = MlflowTracker(self._database, folder.tracked, description, self.say, folder.metrics)
        tracker.view(runs_view(e.num_outer_steps, words))
        return tracker

    def of_shared(self, shared: SharedRun, folder: RunFolder) -> MlflowTracker | NoTracker:
        """The tracker of a prelude's own run."""
        if self.experiment.tracker == "none":
            return NoTracker()
        description = Description(
            experiment=self._under,
            name=shared.name,
            parameters=shared.parameters,
            tags={**self._tags, **shared.tags, "role": shared.role},
            loss=shared.losses[0],
            picture=shared.picture,
        )
        tracker = MlflowTracker(self._database, folder.tracked, description, self.say, folder.metrics)
        tracker.view(shared_view(shared))
        return tracker

    def settle(self, folder: RunFolder) -> None:
        """Close the tracker's run of a finished run, where a kill came between."""
        if self.experiment.tracker == "none" or not folder.tracked.exists():
            return
        try:
            if read_tracked(folder.tracked, folder.path.name).get("status") != "FINISHED":
                replay([folder.path], self._database, self.say)
        except UserError as error:
            self.say(f"warning: the tracker could not be told that this run is finished: {error.where} {error.problem}")

    @property
    def _database(self) -> Path:
        return Path(self.experiment.output) / "mlflow.db"

    @property
    def _under(self) -> str:
        """The name of the experiment in the tracker under which the run is filed."""
        return experiment_name(self.experiment)

    @property
    def _tags(self) -> dict[str, str]:
        e = self.experiment
        return {
            "dataset": e.data.name,
            "seed": str(e.seed),
            "data_sha256": self.splits.sha256,
            "engine": self.engine,
            "mlflow.source.name": "distributed-dd",
            "mlflow.source.type": "LOCAL",
        } | ({"mlflow.source.git.commit": known} if (known := commit()) else {})


def chief(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that people compare runs by, a screen of them; ``resolved.yaml`` beside them has all."""
    flat = dict(flattened(values))
    return {key: flat[key] for key in CHIEF if key in flat} | headline(values)


def experiment_name(experiment: Experiment) -> str:
    """The name under which a tracker files the runs of a data set and method, short enough for any database."""
    return f"distributed_dd/{name_in_path(experiment.data.name)}/{name_in_path(experiment.method.name)}"
