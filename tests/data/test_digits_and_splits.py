"""The embedded data set and its splits."""

import pytest
import torch

from distributed_dd.data.digits import Digits
from distributed_dd.data.splits import content_sha256, stratified
from distributed_dd.errors import ConfigError
from distributed_dd.learning.chance import generator


def test_digits_are_split_without_overlap_and_with_500_or_more_to_test():
    """Catches a test image among the training ones: pixels are compared, not indices."""
    splits = Digits().load()
    parts = (splits.train, splits.validation, splits.test)
    assert [len(p) for p in parts] == [1000, 257, 540] and splits.image_shape == (1, 8, 8)
    from sklearn.datasets import load_digits

    together = torch.cat([p.images.flatten(1) for p in parts]) * 16
    everything = torch.from_numpy(load_digits().data).float()
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, everything.tolist()))
    assert splits.train.images.min() >= 0 and splits.train.images.max() <= 1


def test_a_split_is_stratified_and_the_same_every_time():
    splits, again = Digits().load(), Digits().load()
    share = torch.bincount(splits.test.targets) / 540
    whole = torch.bincount(splits.train.targets) / 1000
    assert (share - whole).abs().max() < 0.003
    assert torch.equal(splits.test.images, again.test.images) and splits.sha256 == again.sha256
    assert not torch.equal(splits.test.images, Digits(split_seed=1).load().test.images)
    assert splits.sha256 == Digits(split_seed=1).load().sha256  # of the content, not the split


def test_stratified_takes_exactly_what_is_asked():
    targets = torch.tensor([0] * 7 + [1] * 5 + [2])
    test, validation, rest = stratified(targets, [4, 3], generator(0, "t"))
    assert (len(test), len(validation), len(rest)) == (4, 3, 6)
    assert sorted(torch.cat([test, validation, rest]).tolist()) == list(range(13))


def test_the_hash_sees_every_value_shape_and_type():
    a = torch.arange(6)
    changed = a.clone()
    changed[5] = 9
    hashes = {content_sha256(t) for t in (a, changed, a.view(2, 3), a.to(torch.int32))}
    assert len(hashes) == 4


def test_too_few_images_left_to_train_are_refused():
    with pytest.raises(ConfigError, match="together at most"):
        Digits(num_test=1000, num_validation=600)
