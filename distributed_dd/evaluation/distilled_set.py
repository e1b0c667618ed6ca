"""A distilled set as a data set of PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from torch import Tensor
from torch.nn.functional import softplus
from torch.utils.data import Dataset

from distributed_dd.data import Fitted
from distributed_dd.errors import ConfigError
from distributed_dd.learning.set_forms import Codec, Pixels

STORED, FORM = "stored.", "form."
"""Of names of tensors: what is kept in place of images, and what all of them share."""
LabelKind = Literal["soft", "hard", "targets"]


class DistilledSet(Dataset):
    """A distilled set that any PyTorch training loop can use.

    Items are (image (C, H, W) in network-input space, label): class probabilities (K,), which
    `torch.nn.CrossEntropyLoss` takes as they are, or the class number with ``labels="hard"``, or with
    ``labels="targets"`` what a regression learned, for `torch.nn.MSELoss`.

    Attributes:
        images (n, C, H, W), labels (n, K) logits: as distilled, and decoded.
        classes, class_to_idx, targets, transform: as torchvision's data sets have them: class names in order, their
            numbers, the class number (n,) of every image, and what is applied to the image of each item.
        stored: what is kept in place of the images, by name; ``images`` where they are kept as they are.
        codec: from that to the images.
        learned_targets: (n, K), centred at 0, where a regression learned them; None otherwise.
        learning_rate: as distilled, or that of the recipe where none was.
        preprocessing: `apply` does to real images (n, C, H, W) in [0, 1] what was done for the set; `invert`.
        manifest: method, data set, class names, network, evaluation recipe, versions.
    """

    def __init__(
        self,
        tensors: dict[str, Tensor],
        manifest: dict[str, Any],
        kind: LabelKind,
        codec: Codec | None = None,
        transform: Callable[[Tensor], Any] | None = None,
    ) -> None:
        self.images, self.labels, self.targets = tensors["images"], tensors["labels"], tensors["classes"]
        learned = tensors.get("learning_rate")
        self.learning_rate = float(manifest["learning_rate"] if learned is None else learned)
        self.preprocessing = Fitted.of(tensors, "preprocessing.")
        self.manifest = manifest
        self.transform = transform
        channels, height, width = self.images.shape[1:]
        self.codec = codec or Pixels().codec((channels, height, width), {})
        self.stored = below(STORED, tensors) or {"images": self.images}
        self.learned_targets: Tensor | None = tensors.get("targets")
        self._raw_rates = tensors.get("raw_step_rates")
        if kind not in get_args(LabelKind):
            raise ConfigError("labels", f"unknown {kind!r}", allowed=", ".join(get_args(LabelKind)))
        self._kind = kind
        self._item_labels = self.targets if kind == "hard" else self.labels.softmax(1)
        if kind == "targets":
            if self.learned_targets is None:
                raise ConfigError("labels", "this set has learned no targets", allowed="soft, hard")
            self._item_labels = self.learned_targets

    @property
    def classes(self) -> list[str]:
        """Names of classes 0, 1, .."""
        return list(self.manifest["class_names"])

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class, by name."""
        return {name: number for number, name in enumerate(self.classes)}

    @property
    def step_rates(self) -> Tensor | None:
        """The learning rates (N,) of the N student steps that the set was made for, where each was learned."""
        return None if self._raw_rates is None else softplus(self._raw_rates)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Images, labels, classes; targets and the numbers behind the rates of steps, where there are some."""
        tensors = {"images": self.images, "labels": self.labels, "classes": self.targets}
        others = {"targets": self.learned_targets, "raw_step_rates": self._raw_rates}
        return tensors | {name: tensor for name, tensor in others.items() if tensor is not None}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image = self.images[index]
        return image if self.transform is None else self.transform(image), self._item_labels[index]

    def __repr__(self) -> str:
        return f"DistilledSet({', '.join(self._facts())})"

    def _facts(self) -> list[str]:
        """Data and method, number and shape of images, labels, accuracy, where the manifest says them."""
        manifest, shape = self.manifest, " × ".join(map(str, self.images.shape[1:]))
        facts = [f"{len(self)} images of {shape}", f"{self._kind} labels"]
        if "images_per_class" in manifest:
            facts.insert(1, f"{pictures_per_class(manifest)} per class")
        if name := manifest.get("dataset", {}).get("name"):
            facts.insert(0, f"{name} by {manifest['method']}" if "method" in manifest else name)
        accuracy = manifest.get("validation_accuracy")
        if accuracy is not None and "sampled" not in manifest:  # that of a generator is no sample's own
            facts.append(f"{100 * accuracy:.1f} % on validation")
        return facts


def pictures_per_class(manifest: Mapping[str, Any]) -> int:
    """Images of a class as networks see them, where their form keeps several in the bytes of one."""
    return int(manifest.get("pictures_per_class", manifest["images_per_class"]))


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
