"""Files of data sets and buffers, damaged at random: they are read, or refused with one error; nothing else happens."""

import random
import shutil
from collections import Counter

import pytest
import torch

from distributed_dd.data import DATA_SETS
from distributed_dd.errors import UserError
from distributed_dd.trajectories.foreign import read_pt
from tests.references.damages import BYTES, damages_of, exchanged
from tests.references.data_layouts import source_of

FAST = 6
MANY = {"svhn": 60}
"""MATLAB's files are read by a process each; of the others there are many more."""


def damaged(kind, tmp_path, monkeypatch, number):
    """Load a set of which one file was damaged; what came of it."""
    rng, root = random.Random(number), tmp_path / f"{kind}-{number}"
    root.mkdir()
    monkeypatch.setenv("DISTRIBUTED_DD_CACHE", str(root / "cache"))
    source = source_of(kind, root, monkeypatch)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = rng.choice(files)
    others = [other for other in files if other != path]
    damage = rng.choice([one for one in damages_of(path) if others or one is not exchanged])
    damage(path, rng.choice(others or files), rng)
    try:
        source.load()
    except UserError:
        return "refused"
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return "read"


KINDS = [kind for kind in DATA_SETS.members if kind != "digits"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "svhn"])
def test_some_damaged_files(kind, tmp_path, monkeypatch):
    verdicts = Counter(damaged(kind, tmp_path, monkeypatch, number) for number in range(FAST))
    assert set(verdicts) <= {"read", "refused"} and verdicts["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files(kind, tmp_path, monkeypatch):
    numbers = range(FAST, FAST + MANY.get(kind, 1000))
    verdicts = Counter(damaged(kind, tmp_path, monkeypatch, number) for number in numbers)
    print(f"{kind}: {dict(verdicts)}")
    assert verdicts["refused"] > 0


@pytest.mark.slow
def test_many_damaged_buffers(tmp_path):
    """As published experts come: nested lists of tensors in a pickle, read by a process of its own."""
    verdicts: Counter = Counter()
    whole = tmp_path / "whole.pt"
    torch.save([[[torch.randn(3, 2), torch.randn(2)] for _ in range(3)] for _ in range(2)], whole)
    for number in range(60):
        rng, path = random.Random(number), tmp_path / "replay_buffer_0.pt"
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.copy(whole, path)
        rng.choice([one for one in BYTES if one is not exchanged])(path, whole, rng)
        try:
            read_pt(path)
            verdicts["read"] += 1
        except UserError:
            verdicts["refused"] += 1
    print(f"buffers: {dict(verdicts)}")
    assert verdicts["refused"] > 20
