"""torchvision's own classifiers by name, for images of 64 pixels and up."""

from dataclasses import dataclass

from torch import nn

from distributed_dd.family import did_you_mean, require, setting


@dataclass(frozen=True)
class TorchvisionModel:
    """Any classifier of torchvision by its name, untrained, for 3-channel images of 64 pixels and up."""

    model: str = setting("its name, such as resnet18, efficientnet_b0, vit_b_16", "resnet18")

    def __post_init__(self) -> None:
        known = _names()
        hint = did_you_mean(self.model, known)
        require(self.model in known, "model", f"unknown {self.model!r}{hint}", "a classifier of torchvision")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Untrained layers; models that fix their image size take it from ``image_shape``."""
        from torchvision import models

        channels, height, width = image_shape
        fits = channels == 3 and min(height, width) >= 64
        require(fits, "network", f"{self.model} on {image_shape} images", "(3, 64, 64) and larger")
        sized = {"image_size": height} if self.model.startswith("vit_") else {}
        return models.get_model(self.model, weights=None, num_classes=num_classes, **sized)


def _names() -> list[str]:
    from torchvision import models

    return models.list_models(module=models)
