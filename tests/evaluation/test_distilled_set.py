"""A distilled set as people meet it: what torchvision's data sets have, and what it says of itself."""

import pytest
import torch

import distributed_dd
from distributed_dd.evaluation.distilled_set import DistilledSet
from distributed_dd.learning.classes import hard_logits

CLASSES = torch.tensor([0, 0, 1, 1])
MANIFEST = {
    "class_names": ["cat", "dog"],
    "learning_rate": 0.1,
    "images_per_class": 2,
    "dataset": {"name": "pets"},
    "method": "datm",
    "validation_accuracy": 0.9345,
}


def set_of(kind="soft", transform=None, **manifest):
    identity = {"mean": torch.zeros(1), "forward": torch.ones(1), "inverse": torch.ones(1)}
    tensors = {"images": torch.arange(64.0).view(4, 1, 4, 4), "labels": hard_logits(CLASSES, 2), "classes": CLASSES}
    tensors |= {f"preprocessing.{name}": value for name, value in identity.items()}
    return DistilledSet(tensors, MANIFEST | manifest, kind, None, transform)


def test_it_has_what_torchvision_users_expect():
    pets = set_of()
    assert pets.classes == ["cat", "dog"] and pets.class_to_idx == {"cat": 0, "dog": 1}
    assert torch.equal(pets.targets, CLASSES) and pets.learned_targets is None


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_transform_sees_the_image_and_not_the_label(kind):
    plain, doubled = set_of(kind), set_of(kind, lambda image: 2 * image)
    for (image, label), (transformed, same_label) in zip(plain, doubled, strict=True):
        assert torch.equal(transformed, 2 * image) and torch.equal(label, same_label)
    assert torch.equal(doubled.images, plain.images), "the set itself stays as it is"


def test_it_says_what_it_is():
    assert repr(set_of()) == (
        "DistilledSet(pets by datm, 4 images of 1 × 4 × 4, 2 per class, soft labels, 93.5 % on validation)"
    )
    assert "8 per class" in repr(set_of(pictures_per_class=8))
    assert "validation" not in repr(set_of(sampled={"seed": 0})), "a sample is not what was scored"
    assert "validation" not in repr(set_of(validation_accuracy=None)), "sets of others were scored by nobody here"


def test_a_set_on_disk_takes_a_transform(finished):
    plain, negative = (
        distributed_dd.load_distilled(finished),
        distributed_dd.load_distilled(finished, transform=torch.neg),
    )
    assert torch.equal(negative[0][0], -plain[0][0])
    assert repr(plain).startswith("DistilledSet(digits by datm, 10 images of 1 × 8 × 8, 1 per class, soft labels, ")
