"""Views of an experiment: the world of its method, an estimate, the manifest and the report of its result."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distributed_dd.data import Facts
from distributed_dd.data.material import Material
from distributed_dd.evaluation import artefact
from distributed_dd.evaluation.protocols import PROTOCOLS, in_words
from distributed_dd.experiment import Experiment, identity_of
from distributed_dd.family import plain
from distributed_dd.methods import METHODS
from distributed_dd.outer.prelude import Prelude
from distributed_dd.outer.scale import Scale
from distributed_dd.outer.sharing import Sharing
from distributed_dd.outer.work import work_line
from distributed_dd.outer.world import World


def world_of(experiment: Experiment, material: Material) -> World:
    """The part of an experiment that its method sees.

    Raises:
        ConfigError: the set cannot be stored in its form.
    """
    e, splits = experiment, material.splits
    return World(
        seed=e.seed,
        network=e.network,
        image_shape=splits.image_shape,
        num_classes=splits.num_classes,
        images_per_class=_pictures_per_class(e, splits.image_shape),
        num_outer_steps=e.num_outer_steps,
        preprocessing=e.preprocessing,
        evaluate=e.evaluate,
        output=Path(e.output),
        real=material,
        frozen=e.set.frozen,
        form=e.set.form,
    )


def _pictures_per_class(experiment: Experiment, image_shape: tuple[int, int, int]) -> int:
    form = experiment.set.form
    form.check(image_shape)
    return experiment.images_per_class * form.pictures(image_shape)


def about(experiment: Experiment, world: World) -> dict[str, Any]:
    """What a report says of the experiment that it is about."""
    e = experiment
    protocol = e.evaluate.protocol
    recipe = e.evaluate.recipe(world.num_classes, world.num_images)
    return {
        "method": e.method.name,
        "kind": METHODS.kind_of(e.method),
        "dataset": e.data.name,
        "images_per_class": e.images_per_class,
        "num_outer_steps": e.num_outer_steps,
        "protocol": {"kind": PROTOCOLS.kind_of(protocol), **plain(protocol)},
        "scored_by": in_words(protocol, recipe),
    }


def described(
    experiment: Experiment, material: Material, config_digest: str, prelude: Prelude | None, facts: dict[str, Any]
) -> dict[str, Any]:
    """The manifest of a result: all that a stranger needs to use it as it was meant."""
    provenance = prelude.provenance() if prelude else None
    values = identity_of(experiment)  # no paths of this machine
    return artefact.describe(experiment.method.name, values, material.splits, config_digest, provenance, facts)


def scale_of(experiment: Experiment, facts: Facts, asked: Sharing | None = None, missing: float | None = None) -> Scale:
    """How large an experiment is on data of which only ``facts`` are known."""
    e = experiment
    return Scale(
        facts=facts,
        network=e.network,
        images_per_class=_pictures_per_class(e, facts.image_shape),
        num_outer_steps=e.num_outer_steps,
        evaluate=e.evaluate,
        missing=missing,
        asked=asked,
        form=e.set.form,
    )


def estimate_lines(experiment: Experiment, scale: Scale) -> Iterator[str]:
    """Disk, memory and work of an experiment, a line a topic."""
    work = experiment.method.work(scale)
    yield from work.lines
    yield work_line(work.operations)
