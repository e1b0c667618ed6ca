"""The conditional GAN that runs share, on disk."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from distributed_dd.durable import digest, read_json, write_bytes, write_json
from distributed_dd.evaluation.artefact import MANIFEST, PREVIEW, verified
from distributed_dd.family import identity
from distributed_dd.locks import locked_when_free
from distributed_dd.methods.generative.settings import GenerativeSettings
from distributed_dd.outer.footprint import Footprint
from distributed_dd.outer.run_folder import RunFolder

SCHEMA = 1
WEIGHTS = "gan.safetensors"
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
        facts = read_json(self.path / MANIFEST)["training"]
        return Footprint(round(facts["seconds"], 2), facts["peak_memory_bytes"])

    def load(self) -> dict[str, Tensor]:
        """What a distillation starts from.

        Raises:
            IntegrityError: the file's SHA-256 is not that of the manifest.
        """
        return verified(self.path, WEIGHTS, read_json(self.path / MANIFEST))

    def write(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep a GAN that was trained to the end."""
        sha256 = write_bytes(self.path / WEIGHTS, save({k: t.contiguous() for k, t in tensors.items()}))
        write_json(
            self.path / MANIFEST,
            {"schema": SCHEMA, "sha256": {WEIGHTS: sha256}, "identity": self.identity, **facts},
        )

    def held(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold the folder, once whoever has it lets go."""
        return locked_when_free(self.path, "GAN", say)
