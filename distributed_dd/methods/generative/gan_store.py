"""The conditional GAN that runs share, on disk."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from distributed_dd.durable import digest, write_bytes
from distributed_dd.evaluation.artefact import MANIFEST, PREVIEW, verified
from distributed_dd.family import identity
from distributed_dd.learning.tensor_files import refuse_not_finite
from distributed_dd.locks import locked_when_free
from distributed_dd.methods.generative.settings import GenerativeSettings
from distributed_dd.outer.footprint import Footprint
from distributed_dd.outer.run_folder import RunFolder
from distributed_dd.records import read_record, write_record

SCHEMA = 1
WEIGHTS, KIND = "gan.safetensors", "gan"
# What of the method has a part in the GAN's own training.
SETTINGS = (
    "generator",
    "discriminator",
    "gan",
    "discriminator_steps",
    "gradient_penalty",
    "classification_weight",
    "ema_decay",
    "precision",
)


def _owner(values: Mapping[str, Any]) -> str:
    """The digest of a GAN, as its manifest says what decides about it."""
    return digest(values.get("identity"))


class GanStore:
    """One conditional GAN in a folder named by all that decides about it.

    ``gan.safetensors`` holds both networks with Adam's state, ``manifest.json`` what they are; without a
    manifest there is no GAN. ``checkpoint/`` and ``metrics.jsonl`` are as in a run folder.
    """

    def __init__(self, root: Path, method: GenerativeSettings, data: dict[str, Any], seed: int) -> None:
        values = identity(method)
        self.identity = {**data, "seed": seed, **{name: values[name] for name in SETTINGS}}
        self.digest = digest(self.identity)
        self.path = root / self.digest[:16]
        self.folder = RunFolder(self.path, self.digest)
        self.preview = self.path / PREVIEW

    @property
    def exists(self) -> bool:
        """Whether it was trained to the end."""
        return (self.path / MANIFEST).exists()

    @property
    def cost(self) -> Footprint:
        """What its training took, whoever did it."""
        facts = self._manifest()["training"]
        return Footprint(round(facts["seconds"], 2), facts["peak_memory_bytes"])

    def _manifest(self) -> dict[str, Any]:
        fix = f"move {self.path} away and run the same command: it is trained again"
        needs = {"sha256": dict, "training": dict}
        return read_record(self.path / MANIFEST, KIND, owner=self.digest, fix=fix, needs=needs, older=_owner)

    def load(self) -> dict[str, Tensor]:
        """What a distillation starts from.

        Raises:
            IntegrityError: the file's SHA-256 is not that of the manifest.
        """
        tensors = verified(self.path, WEIGHTS, self._manifest())
        refuse_not_finite(tensors, str(self.path / WEIGHTS))
        return tensors

    def write(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep a GAN that was trained to the end."""
        sha256 = write_bytes(self.path / WEIGHTS, save({k: t.contiguous() for k, t in tensors.items()}))
        values = {"schema": SCHEMA, "sha256": {WEIGHTS: sha256}, "identity": self.identity, **facts}
        write_record(self.path / MANIFEST, KIND, self.digest, values)

    def held(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold the folder, once whoever has it lets go."""
        return locked_when_free(self.path, "GAN", say)
