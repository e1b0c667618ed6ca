"""What a set takes to keep: bytes of each class, images and labels apart, because soft labels may outweigh images."""

from collections.abc import Iterable

from torch import Tensor


def bytes_per_class(images: Tensor, labels: Tensor, targets: Tensor | None = None) -> dict[str, int]:
    """Bytes of a class on average, as an artefact keeps it: images (n, C, H, W), label logits (n, K), float32.

    Targets that were learned beside the labels count as labels. A set whose labels are hard would do with a class
    number an image; what is kept is what is counted.
    """
    num_classes = labels.shape[1]
    num_bytes = labels.nbytes + (0 if targets is None else targets.nbytes)
    return {"images": images.nbytes // num_classes, "labels": num_bytes // num_classes}


def in_a_form(sizes: dict[str, int], images: Iterable[Tensor], shared: Iterable[Tensor], num_classes: int) -> dict:
    """`bytes_per_class` of a set whose images are kept in a form: what is kept of them, and what all of them share."""
    own, common = (sum(tensor.nbytes for tensor in tensors) for tensors in (images, shared))
    return {**sizes, "images": own // num_classes, "form": -(-common // num_classes)}


def in_words(sizes: dict[str, int]) -> str:
    """Such sizes in a sentence."""
    if "form" in sizes:
        shared = f", what all images share {sizes['form']:,}" if sizes["form"] else ""
        return (
            f"Bytes per class: images {sizes['images']:,} in their form, labels {sizes['labels']:,}{shared} (as kept)."
        )
    return f"Bytes per class: images {sizes['images']:,}, labels {sizes['labels']:,} (float32, as kept)."
