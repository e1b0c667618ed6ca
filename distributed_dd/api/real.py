"""Real images by what a person has at hand: a result, a configuration, the name of a data set."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from distributed_dd.api.inputs import Config, source_of, typed
from distributed_dd.api.results import Result
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.composition import experiment_from
from distributed_dd.data import DATA_SETS
from distributed_dd.data.material import Material
from distributed_dd.errors import MissingInputError
from distributed_dd.evaluation.real_images import RealSet, check_split, real_images_of
from distributed_dd.family import build_member, did_you_mean
from distributed_dd.folder_evaluation import is_ours
from distributed_dd.presets import near


def load_real(
    what: Config | Result,
    /,
    split: Literal["train", "validation", "test"] = "test",
    *,
    transform: Callable[[Tensor], Any] | None = None,
    natural: bool = False,
    **settings: Any,
) -> RealSet:
    """Real images and their classes: of a result, of a configuration, or of a data set by its kind.

    Of a result or a configuration they are as its networks see them, as the images of `load_distilled` are: a network
    trained on the one and tested on the other repeats the report's first row. ``natural=True`` gives pixels in [0, 1]
    instead, in the colours that a person sees; a data set alone says no preprocessing, and gives these in any case.

    Args:
        what: a result or its folder; a configuration: a file, a name such as ``"digits/datm_ipc10"``, or a dict; a
            data set: its kind, such as ``"mnist"``, or a dict with ``kind`` and settings.
        split: of the run, the same for all runs with these settings of the data.
        transform: applied to the image (C, H, W) of each item, such as an augmentation.
        settings: of a result, where its data lie: ``root="data"`` for published data sets, ``path="pets"`` for
            folders and arrays, which have no place by default. Else any setting of the data.

    Raises:
        ConfigError: no such split, setting or data set, or a place must be named. MissingInputError: the folder holds
            no result, or the data are not there. IntegrityError: the data are not those that a set was made from.
    """
    check_split(split)
    if isinstance(what, Result):
        return real_images_of(what.folder, split, settings, natural, transform)
    if (values := _data_set(what)) is not None:
        plain = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in settings.items()}
        source = build_member(DATA_SETS, {**values, **plain}, "data")
        return RealSet(source.load(ConsoleProgress().say), split, None, transform)
    place = source_of(what)
    if isinstance(place, Path) and place.is_dir():
        return real_images_of(place, split, settings, natural, transform)
    if isinstance(place, Path) and not place.exists():
        raise _unknown(place)
    experiment = experiment_from(place, typed(None, {f"data.{key}": value for key, value in settings.items()}))
    say = ConsoleProgress().say
    material = Material(experiment.data.load(say), experiment.preprocessing, say)
    return RealSet(material.splits, split, None if natural else material.fitted, transform)


def _data_set(what: Config) -> dict[str, Any] | None:
    """The values of a data set, where ``what`` names one; a folder of that name wins where it holds a result."""
    if isinstance(what, Mapping):
        return dict(what) if "kind" in what else None
    return {"kind": what} if isinstance(what, str) and what in DATA_SETS.members and not is_ours(Path(what)) else None


def _unknown(place: Path) -> MissingInputError:
    """The error where nothing is called so."""
    hint = did_you_mean(str(place), [*DATA_SETS.members, *near(place)])
    kinds = ", ".join(DATA_SETS.members)
    allowed = f"the folder of a result, a configuration, or a data set: {kinds}"
    return MissingInputError(str(place), f"there is no such thing{hint}", allowed=allowed)
