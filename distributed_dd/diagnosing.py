"""A diagnosis: before hours are spent, whether the objective of an experiment knows accuracy; on validation alone."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.crew import RunCrew
from distributed_dd.data import Images
from distributed_dd.data.splits import stratified
from distributed_dd.durable import digest, write_bytes
from distributed_dd.errors import ConfigError
from distributed_dd.evaluation.controls import controls_of
from distributed_dd.evaluation.diagnosed_sets import KEY, Asked, controls_to_beat, in_the_form, sets_to_ask
from distributed_dd.evaluation.diagnosis import Pair, as_values, readings_of
from distributed_dd.evaluation.diagnosis_plot import diagnosis_png
from distributed_dd.evaluation.fits import Contest, score
from distributed_dd.evaluation.kept_losses import KeptLosses
from distributed_dd.evaluation.scored import Scored
from distributed_dd.evaluation.settings import RULES
from distributed_dd.evaluation.teacher import teacher_of
from distributed_dd.experiment import Experiment
from distributed_dd.experiment_run import Run
from distributed_dd.facets import about
from distributed_dd.family import plain, setting
from distributed_dd.learning.chance import generator
from distributed_dd.learning.loop import Recipe
from distributed_dd.learning.set_forms import SET_FORMS
from distributed_dd.locks import locked
from distributed_dd.methods import METHODS
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.look import Look, Losses, draws_of
from distributed_dd.outer.method import Method
from distributed_dd.outer.pace import seconds_of_steps
from distributed_dd.outer.ports import Job, Workers
from distributed_dd.records import owner_of, read_record, write_record

KIND, SCHEMA = "diagnosis", 1
FIRST_MEMBER = 4000
NEEDS = {"schema": int, "pairs": list, "facts": dict, "loss": str, "predicted": dict}


@dataclass(frozen=True, kw_only=True)
class Diagnose:
    """How much is asked before a distillation."""

    num_sets: int = setting(
        "sets at which the loss is asked, and on which networks train", 22, at_least=5, at_most=1000
    )
    num_draws: int = setting("outer steps, spread over the distillation, whose losses are averaged", 8, at_least=1)
    steps_per_draw: int = setting(
        "outer steps from each of these on, where a network learns from the set between them", 1, at_least=1
    )
    num_networks: int = setting("fresh networks on each set", 1, at_least=1, at_most=100)
    num_epochs: int = setting(
        "passes of these networks over the set; evaluate.num_epochs, where that is less", 100, at_least=1
    )
    num_validation: int = setting("validation images that judge them; all, where there are fewer", 1000, at_least=1)
    num_experts: int = setting("experts that are asked; those that are missing are trained, and kept", 2, at_least=1)


@dataclass(kw_only=True)
class Diagnosing:
    """One diagnosis in its folder; killed, the same goes on.

    Raises:
        ConfigError: the loss of the method cannot be asked of a given set.
    """

    experiment: Experiment
    asked: Diagnose
    cluster: RayCluster | InProcess
    progress: ConsoleProgress = field(default_factory=ConsoleProgress)
    seconds: dict[str, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        e = self.experiment
        if type(e.method).look is Method.look:
            raise _cannot_be_asked(e.method)
        self.run = Run(experiment=e, cluster=self.cluster, progress=self.progress)
        few = replace(
            e,
            method=e.method.with_fewer(self.asked.num_experts),
            evaluate=replace(e.evaluate, controls=RULES),
        )
        self.few = Run(experiment=few, cluster=self.cluster, progress=self.progress, material_at_hand=self.run.material)
        self.folder = Path(e.output) / "diagnoses" / self.run.name

    @property
    def owner(self) -> str:
        """The digest of all that decides about the diagnosis."""
        return digest([KIND, self._sets_digest, plain(self.asked)])

    @property
    def _sets_digest(self) -> str:
        """The digest of what decides about the sets: earlier versions asked sets that were not in the form."""
        return self.few.digest if self.few.world.form.plain else digest([self.few.digest, "in the form"])

    def known(self) -> dict[str, Any] | None:
        """The diagnosis that is there; None where there is none, or one that other settings decided.

        Raises:
            IntegrityError: it is not what was written.
        """
        path = self.folder / "diagnosis.json"
        if not path.exists():
            return None
        record = read_record(path, KIND, needs=NEEDS, fix=f"delete it: {path} is made again")
        return record if owner_of(record) == self.owner else None

    def diagnose(self) -> dict[str, Any]:
        """Ask, train, read, predict; what is there already is not done again."""
        with locked(self.folder, "diagnosis"):
            return self.known() or self._made()

    def _made(self) -> dict[str, Any]:
        with self._timed("preparation"):
            self.few.prepare()
            look = self.few.method.look(self.few.world)
            if look is None:
                raise _cannot_be_asked(self.experiment.method)
            asked, controls = self._sets(look), self._controls(look)
        draws = draws_of(self.experiment.num_outer_steps, look.turn, self.asked.num_draws, self.asked.steps_per_draw)
        with self._timed("losses"):
            losses = self._losses(asked, look.losses, draws)
        with self._timed("networks"):
            accuracies = self._accuracies([*asked, *controls])
        with self._timed("outer steps"):
            steps = self._steps(look)
        pairs = [
            Pair(
                name=one.name,
                how=one.how,
                loss=sum(own) / len(own),
                accuracies=tuple(reached),
                random=one.random,
                coreset=one.coreset,
            )
            for one, own, reached in zip(asked, losses, accuracies[: len(asked)], strict=True)
        ]
        to_beat = zip(controls, accuracies[len(asked) :], strict=True)
        return self._written(pairs, [{"name": one.name, "accuracies": own} for one, own in to_beat], draws, steps)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.seconds[stage] = round(time.monotonic() - begun, 2)

    def _sets(self, look: Look) -> list[Asked]:
        seed, train, per_class = self.experiment.seed, self.run.material.train, self.few.world.images_per_class
        coresets = controls_of(self.few.world, self.cluster, self.progress, per_class)
        num, start, form = self.asked.num_sets, look.start, self.few.world.form
        asked = sets_to_ask(num, per_class, start, train, look.labels, coresets, seed, look.targets)
        codec = form.fitted(self.few.world.image_shape, lambda: train.images)
        return asked if form.plain else in_the_form(asked, start, codec)

    def _controls(self, look: Look) -> list[Asked]:
        """What the set is to beat, where that is no set of as many images: real ones in the same bytes."""
        world, train = self.few.world, self.run.material.train
        if world.stored_per_class == world.images_per_class:
            return []
        coresets = controls_of(world, self.cluster, self.progress)
        return controls_to_beat(coresets, look, train, world.stored_per_class)

    def _losses(self, asked: Sequence[Asked], ask: Losses, draws: Sequence[range]) -> list[list[float]]:
        """For each set the losses of the same outer steps; a task asks one stretch of them at all sets."""
        kept = KeptLosses(self.folder / "losses.jsonl", self._sets_digest)
        names, sets = [one.name for one in asked], [dict(one.tensors) for one in asked]
        keys = [{"steps": [draw.start, draw.stop], "sets": names} for draw in draws]
        missing = [number for number, key in enumerate(keys) if kept.get(key) is None]
        tasks = [draws[number] for number in missing]
        with self.progress.bar("losses", len(draws), len(draws) - len(missing)) as bar:
            for place, losses in self.cluster.map(_losses_at, tasks, (ask, sets)):
                kept.keep(keys[missing[place]], losses)
                bar.advance()
        by_draw = [kept.get(key) or [] for key in keys]
        return [[loss for stretch in by_draw for loss in stretch[number]] for number in range(len(asked))]

    def _accuracies(self, asked: Sequence[Asked]) -> list[list[float]]:
        """For each set what the same fresh networks reach on validation; 0 where a training diverged."""
        e, num = self.experiment, self.asked.num_networks
        judge = self._judge()
        contest = Contest(
            network=e.network,
            recipe=self._recipe,
            seed=e.seed,
            num_classes=self.few.world.num_classes,
            judge=judge,
            teacher=teacher_of(e.network, e.evaluate, e.seed, self.few.material, self.cluster, self.progress),
        )
        members = range(FIRST_MEMBER, FIRST_MEMBER + num)
        fits = [
            replace(fit, row=one.name) for one in asked for fit in self.few.product.fits(dict(one.tensors), members)
        ]
        scored = Scored(self.folder / "scored.jsonl", digest([self._sets_digest, len(judge)]))
        outcomes = score(fits, contest, self.cluster, self.progress, "networks (validation)", scored)
        values = [max(0.0, outcome.accuracy) for outcome in outcomes]
        return [values[first : first + num] for first in range(0, len(values), num)]

    @property
    def _full_recipe(self) -> Recipe:
        """How the experiment's report trains networks on a set."""
        world = self.few.world
        return self.experiment.evaluate.recipe(world.num_classes, world.num_images)

    @property
    def _recipe(self) -> Recipe:
        """How networks are trained on a set here: for fewer epochs."""
        return self._full_recipe.at_most(self.asked.num_epochs)

    def _judge(self) -> Images:
        """Validation images, classes in equal shares."""
        every, num = self.run.material.validation, self.asked.num_validation
        if num >= len(every):
            return every
        index = stratified(every.targets, [num], generator(self.experiment.seed, KEY, "validation"))[0]
        return Images(every.images[index], every.targets[index])

    def _steps(self, look: Look) -> list[float]:
        """Seconds of some outer steps of the distillation itself, by those who will make it."""
        few, engine = self.few, self.cluster.engine
        engine.refuse_without_room(self.cluster)
        crew = RunCrew(few.experiment, few.material.splits, self.cluster, self.progress)
        folder = self.folder.absolute()

        def job(checkpoints: Checkpoints) -> Job:
            return few.method.job(few.world, checkpoints)

        def workers(job: Job) -> Workers:
            return crew.workers(job, folder / "ranks")

        checkpoints = Checkpoints(folder / "checkpoint", few.digest)
        start = few.product.as_kept(look.start)
        return seconds_of_steps(start, checkpoints, job, workers, self.experiment.num_outer_steps)

    def _written(
        self, pairs: Sequence[Pair], controls: list[dict[str, Any]], draws: Sequence[range], steps: Sequence[float]
    ) -> dict[str, Any]:
        """Picture and record; the record last."""
        e, prelude, world = self.experiment, self.run.prelude, self.few.world
        metric, loss = next(iter(e.method.words.losses.items()))
        predicted = {
            "num_outer_steps": e.num_outer_steps,
            "seconds_per_step": [round(value, 5) for value in steps],
            "missing": prelude.missing() if prelude else 0,
            "stage": prelude.stage if prelude else "",
            "seconds_missing": prelude.seconds_missing() if prelude else 0.0,
        }
        facts = {
            "num_epochs": self._recipe.num_epochs,
            "num_epochs_of_evaluation": self._full_recipe.num_epochs,
            "num_validation": min(self.asked.num_validation, len(self.run.material.validation)),
            "outer_steps": [step for draw in draws for step in draw],
            "threads": torch.get_num_threads(),
            "seconds": self.seconds,
        }
        everywhere, among_random = readings_of(pairs)
        form = {"kind": SET_FORMS.kind_of(world.form), "pictures": world.images_per_class, "controls": controls}
        values = {
            "schema": SCHEMA,
            **about(e, world),
            **({} if world.form.plain else {"form": form}),
            "asked": plain(self.asked),
            "loss": loss,
            "metric": metric,
            "facts": facts,
            "pairs": [as_values(pair) for pair in pairs],
            "reading": everywhere.as_json(),
            "among_random": among_random.as_json(),
            "predicted": predicted,
        }
        title = f"{e.data.name}, {e.method.name}, {e.images_per_class} per class"
        write_bytes(self.folder / "diagnosis.png", diagnosis_png({title: pairs}, loss))
        write_record(self.folder / "diagnosis.json", KIND, self.owner, values)
        return values


def _losses_at(draw: range, shared: tuple[Losses, Sequence[Mapping[str, Tensor]]]) -> list[list[float]]:
    """The losses of one stretch at all sets, as a task on a cluster."""
    ask, sets = shared
    return ask(draw, sets)


def _cannot_be_asked(method: Method) -> ConfigError:
    kinds = [kind for kind, cls in METHODS.members.items() if cls.look is not Method.look]
    return ConfigError(
        "method.kind",
        f"the loss of {METHODS.kind_of(method)} cannot be asked of a given set of images",
        allowed=f"for diagnose: {', '.join(kinds)}",
    )
