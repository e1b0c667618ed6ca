"""The distilled generator as a self-describing folder, its loader, and sets sampled from it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from distributed_dd.durable import write_bytes
from distributed_dd.errors import IntegrityError, MissingInputError
from distributed_dd.evaluation import artefact
from distributed_dd.evaluation.artefact import MANIFEST
from distributed_dd.evaluation.distilled_set import DistilledSet
from distributed_dd.family import build, identity, require
from distributed_dd.learning.networks.generator import ConvGenerator
from distributed_dd.learning.tensor_files import refuse_not_finite
from distributed_dd.methods.generative.source import Source, all_classes, built, finished, frozen
from distributed_dd.outer.environment import versions
from distributed_dd.outer.work import size
from distributed_dd.outer.world import World
from distributed_dd.records import SEAL, write_record

SCHEMA = 1
FOLDER, WEIGHTS, LAST = "generator", "generator.safetensors", "last_step.safetensors"
FROZEN, FRESH = "frozen sample", "fresh noise in every epoch"


class Generator:
    """A distilled generator: sets of any size, frozen or new in every epoch.

    Attributes:
        manifest: method, data set, class names, network, evaluation recipe, versions.
        preprocessing: `apply` does to real images (n, C, H, W) in [0, 1] what networks are to see; `invert`.
        num_bytes: of its parameters and statistics, float32.
    """

    def __init__(self, tensors: dict[str, Tensor], manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        self.preprocessing = artefact.fitted_of(tensors, tuple(manifest["image_shape"]), "generator")
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("preprocessing.")}
        member: ConvGenerator = build(ConvGenerator, manifest["generator"], "generator")
        self._member, self.num_classes = member, len(manifest["class_names"])
        channels, height, width = manifest["image_shape"]
        self._layers = built(member, (channels, height, width), self.num_classes)
        self._layers.load_state_dict({name.removeprefix("generator."): t for name, t in tensors.items()})
        self.num_bytes: int = manifest["num_bytes"]

    def __repr__(self) -> str:
        m, shape = self.manifest, " × ".join(map(str, self.manifest["image_shape"]))
        what = f"{m['dataset']['name']} by {m['method']}, images of {shape}, {self.num_classes} classes"
        accuracy = m.get("validation_accuracy")
        scored = "" if accuracy is None else f", {100 * accuracy:.1f} % on validation"
        return f"Generator({what}, {size(self.num_bytes)}{scored})"

    def source(self, images_per_class: int, seed: int = 0) -> Source:
        """The generator as a source of so many images of each class."""
        for name, value, least in (("images_per_class", images_per_class, 1), ("seed", seed, 0)):
            good = isinstance(value, int) and value >= least
            require(good, name, f"got {value!r}", f"a whole number, {least} or more")
        return Source(
            layers=self._layers,
            fitted=self.preprocessing,
            noise_size=self._member.noise_size,
            num_classes=self.num_classes,
            classes=all_classes(self.num_classes, images_per_class),
            seed=seed,
        )

    def sample(self, images_per_class: int, seed: int = 0) -> DistilledSet:
        """A frozen set; the same number and seed give the same images."""
        manifest = self.sample_manifest(images_per_class, seed)
        tensors = frozen(self.source(images_per_class, seed), manifest["learning_rate"])
        fitted = {f"preprocessing.{name}": t for name, t in self.preprocessing.tensors().items()}
        return DistilledSet({**tensors, **fitted}, manifest, "soft")

    def sample_manifest(self, images_per_class: int, seed: int) -> dict[str, Any]:
        """The manifest of a set that `sample` gives."""
        configuration = {**self.manifest["configuration"], "images_per_class": images_per_class}
        return {
            **{key: value for key, value in self.manifest.items() if key not in OF_THE_GENERATOR},
            "images_per_class": images_per_class,
            "configuration": configuration,
            "learning_rate": configuration["evaluate"]["optimizer"]["learning_rate"],
            "sampled": {
                "protocol": FROZEN,
                "seed": seed,
                "generator_sha256": self.manifest["sha256"][WEIGHTS],
                "generator_bytes": self.num_bytes,
            },
        }

    def stream(self, images_per_class: int, seed: int = 0) -> "FreshImages":
        """A data set of so many images of each class that are new in every pass through it."""
        return FreshImages(self.source(images_per_class, seed))


OF_THE_GENERATOR = ("schema", "sha256", "num_bytes", "num_parameters", "generator", SEAL)


class FreshImages(IterableDataset):
    """Images of a generator as a PyTorch data set: (image (C, H, W), class), in random order, new every time.

    A `DataLoader` divides them over its workers.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._epoch = source, 0

    def __len__(self) -> int:
        return len(self._source.classes)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker, source, part = get_worker_info(), self._source, slice(None)
        number, self._epoch = self._epoch, self._epoch + 1
        if worker is not None:
            # Workers are copies. Those that are made for every epoch count from 0 each time, but their seed
            # is new; those that persist keep the seed, and count.
            source = source.keyed(worker.seed - worker.id)
            part = slice(worker.id, None, worker.num_workers)
        images = source.epoch(number)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(number))
        for index in order[part].tolist():
            yield images[index], source.classes[index]


def load_generator(path: str | Path) -> Generator:
    """The generator in ``path``: a run folder or its ``generator/`` folder.

    Raises:
        MissingInputError: the folder holds no generator.
        IntegrityError: its SHA-256 is not that of the manifest.
    """
    folder = folder_of(Path(path))
    if not Path(path).exists():
        raise MissingInputError(str(path), "there is no such folder")
    if folder is None:
        raise MissingInputError(
            str(path),
            "holds no distilled generator",
            allowed="a run folder, or its generator/ folder",
            fix="distributed-dd run configs/digits/generative_ipc10.yaml, for one",
        )
    manifest = artefact.manifest_of(folder)
    tensors = artefact.verified(folder, WEIGHTS, manifest)
    refuse_not_finite(tensors, str(folder / WEIGHTS))
    try:
        return Generator(tensors, manifest)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise IntegrityError(str(folder), f"is no generator of this version: {error}") from None


def folder_of(path: Path) -> Path | None:
    """The generator's folder that ``path`` means, if there is one."""
    for folder in (path / FOLDER, path):
        if (folder / MANIFEST).exists() and (folder / WEIGHTS).exists():
            return folder
    return None


def write_generator(
    folder: Path, member: ConvGenerator, world: World, theta_P: Tensor, facts: dict[str, Any], last_P: Tensor
) -> Generator:
    """Write the generator and its last step, then the manifest: a folder without a manifest holds no generator.

    Args:
        theta_P: parameters of the step that was chosen. last_P: of the last one.

    Raises:
        IntegrityError: a number is not finite; nothing is written.
    """
    refuse_not_finite({"theta": theta_P, "last": last_P}, str(folder))
    layers = finished(member, world.image_shape, world.num_classes, theta_P)
    state = {f"generator.{name}": t.contiguous() for name, t in layers.state_dict().items()}
    extra = {f"preprocessing.{name}": t.contiguous() for name, t in world.real.fitted.tensors().items()}
    files = {WEIGHTS: save({**state, **extra}), LAST: save({"theta": last_P.contiguous()})}
    hashes = {name: write_bytes(folder / name, content) for name, content in files.items()}
    manifest = {
        "schema": SCHEMA,
        "sha256": hashes,
        "num_parameters": len(theta_P),
        "num_bytes": sum(t.nbytes for t in state.values()),
        "generator": identity(member),
        **facts,
        "versions": versions(),
    }
    write_record(folder / MANIFEST, artefact.KIND, facts["config"], manifest)
    return load_generator(folder)


def last_step(folder: Path) -> Tensor:
    """The generator's parameters (P,) after the last outer step, whatever validation preferred.

    Raises:
        MissingInputError: the file is missing. IntegrityError: it is not what was written.
    """
    return artefact.verified(folder, LAST, artefact.manifest_of(folder))["theta"]
