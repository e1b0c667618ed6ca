"""A set as methods see it, and as it is learned and kept, where the first dimension of row tensors is stored rows.

Labels and targets are (n, K) to a method; with several pictures in a row they are kept as (n, pictures, K). Pictures of
a row are of one class, and classes stay one number a row.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from distributed_dd.learning.set_forms.form import Codec

IMAGES, CLASSES = "images", "classes"
LABELLING = ("labels", "targets")


def grouped(name: str, tensor: Tensor, pictures: int) -> Tensor:
    """A row tensor that is none of images, a row of ``pictures`` each; others as they are."""
    if name in LABELLING and pictures > 1:
        return tensor.reshape(-1, pictures, *tensor.shape[1:])
    return tensor[::pictures] if name == CLASSES else tensor


def one_by_one(name: str, tensor: Tensor, pictures: int) -> Tensor:
    """The inverse of `grouped`."""
    if name in LABELLING and pictures > 1:
        return tensor.flatten(0, 1)
    return tensor.repeat_interleave(pictures, 0) if name == CLASSES else tensor


def stored(tensors: Mapping[str, Tensor], codec: Codec) -> dict[str, Tensor]:
    """A set as methods see it -> as it is learned.

    Raises:
        ValueError: pictures that would share a row are of several classes.
    """
    classes = tensors[CLASSES]
    same = grouped(CLASSES, classes, codec.pictures).repeat_interleave(codec.pictures, 0)[: len(classes)]
    if len(classes) % codec.pictures or not torch.equal(same, classes):
        raise ValueError(f"{codec.pictures} pictures of one class share a row; classes are {classes.tolist()}")
    rows = {name: grouped(name, tensor, codec.pictures) for name, tensor in tensors.items() if name != IMAGES}
    return {IMAGES: codec.encode(tensors[IMAGES]), **rows}


def seen(tensors: Mapping[str, Tensor], codec: Codec) -> dict[str, Tensor]:
    """A set as it is learned -> as methods see it."""
    rows = {name: one_by_one(name, tensor, codec.pictures) for name, tensor in tensors.items() if name != IMAGES}
    return ({IMAGES: codec.decoded(tensors[IMAGES])} if IMAGES in tensors else {}) | rows
