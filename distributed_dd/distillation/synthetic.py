"""The synthetic set: what distillation learns."""

import torch
from torch import Tensor, nn


class SyntheticSet(nn.Module):
    """Images, label logits and student learning rate as parameters.

    Images are one parameter per class block, so that a sharded engine can gather only the blocks
    that a student step needs.
    """

    classes: Tensor

    def __init__(
        self, images_nCHW: Tensor, labels_nK: Tensor, classes_n: Tensor, learning_rate: float
    ) -> None:
        super().__init__()
        # Sorted and equally many per class, so that blocks and rows agree.
        counts = torch.unique_consecutive(classes_n, return_counts=True)[1].tolist()
        self.blocks = nn.ParameterList([nn.Parameter(b.clone()) for b in images_nCHW.split(counts)])
        self.labels = nn.Parameter(labels_nK.clone())
        self.learning_rate = nn.Parameter(torch.tensor(float(learning_rate)))
        self.register_buffer("classes", classes_n.clone())

    def images(self) -> Tensor:
        """All images (n, C, H, W), class by class."""
        return torch.cat([block.detach() for block in self.blocks])

    def tensors(self) -> dict[str, Tensor]:
        """A copy of the set as plain CPU tensors."""
        return {
            "images": self.images().cpu(),
            "labels": self.labels.detach().cpu().clone(),
            "classes": self.classes.cpu().clone(),
            "learning_rate": self.learning_rate.detach().cpu().clone(),
        }

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Copy images, labels and learning rate in."""
        counts = [len(block) for block in self.blocks]
        for block, part in zip(self.blocks, tensors["images"].split(counts), strict=True):
            block.copy_(part)
        self.labels.copy_(tensors["labels"])
        self.learning_rate.copy_(tensors["learning_rate"])
