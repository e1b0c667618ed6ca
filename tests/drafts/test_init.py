"""`init` writes a configuration that runs, for whatever images people have."""

import json
import math
from pathlib import Path

import numpy
import pytest
from PIL import Image

from distributed_dd import config
from distributed_dd.cli import main
from distributed_dd.data import DATA_SETS
from distributed_dd.data.glance import glance_at
from distributed_dd.drafts.draft import draft
from distributed_dd.family import build_member
from distributed_dd.methods import FIRST_CHOICE, METHODS
from tests.conftest import ROOT

HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
QUICK = [
    *("num_outer_steps=3", "tracker=none", "network.width=8", "evaluate.every=3", "evaluate.num_epochs=2"),
    *("evaluate.num_networks=1", "evaluate.num_validation_networks=1", "evaluate.num_epochs_full_data=1"),
    "evaluate.controls=[]",
]


@pytest.fixture
def pets(tmp_path, monkeypatch) -> Path:
    """A folder of 3 x 12 colour pictures of several sizes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = numpy.random.default_rng(0)
    for number, name in enumerate(("cat", "dog", "owl")):
        folder = tmp_path / "pets" / name
        folder.mkdir(parents=True)
        for picture in range(12):
            pixels = rng.integers(0, 100, (18 + number, 20, 3), dtype=numpy.uint8)
            pixels[..., number] += 100
            Image.fromarray(pixels).save(folder / f"{picture}.png")
    return Path("pets")


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """Two classes of grey images, one lighter than the other."""
    monkeypatch.chdir(tmp_path)
    labels = numpy.arange(40) % 2
    images = numpy.random.default_rng(0).integers(0, 100, (40, 10, 10), dtype=numpy.uint8)
    images[labels == 1] += 120
    numpy.savez("two.npz", images=images, labels=labels)
    return Path("two.npz")


@pytest.mark.parametrize("data", ["pets", "archive", "digits"])
def test_what_is_written_shows(data, request, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = data if data == "digits" else str(request.getfixturevalue(data))
    assert main(["init", "first", "--data", text]) == 0
    said = capsys.readouterr().out
    assert "classes" in said.splitlines()[0] and "distributed-dd run first.yaml" in said
    assert main(["show", "first.yaml"]) == 0
    assert "(not started)" in capsys.readouterr().out
    assert config.read(Path("first.yaml"))["method"]["kind"] == FIRST_CHOICE


def test_every_setting_has_a_comment_and_the_head_says_what_to_change(archive, capsys):
    assert main(["init", "--data", "two.npz", "--method", "trajectory_matching"]) == 0
    head, rest = Path("distil.yaml").read_text().split("\nimages_per_class", 1)
    assert "Change first:\n#   images_per_class, num_outer_steps\n" in head and all(
        line.startswith("#") for line in head.splitlines()
    )
    assert [line for line in rest.splitlines() if "  # " not in line] == []


@pytest.mark.parametrize("images_per_class", [1, 2])
@pytest.mark.parametrize("method", METHODS.members)
def test_every_kind_of_method_fits_a_small_folder(method, images_per_class, pets, capsys):
    """Also at a size for which nothing was published."""
    size = ["--ipc", str(images_per_class)]
    assert main(["init", "first", "--data", "pets", "--method", method, *size]) == 0
    assert main(["show", "first.yaml"]) == 0
    values = config.read(Path("first.yaml"))
    assert values["method"]["kind"] == method and values["data"]["size"] == 16
    assert values["images_per_class"] == images_per_class


def test_a_network_that_has_no_depth_stays_as_it_is(pets, capsys):
    assert main(["init", "first", "--data", "pets", "--method", "dd"]) == 0
    assert main(["show", "first.yaml"]) == 0


@pytest.mark.parametrize("method", [FIRST_CHOICE, "trajectory_matching"])
def test_it_runs_to_its_end_and_something_is_learned(method, archive, tmp_path, capsys):
    """Catches a gate that lets nothing pass, and rates that diverge."""
    assert main(["init", "first", "--data", "two.npz", "--method", method]) == 0
    experts = ["experts.num_experts=2", "experts.num_epochs=24"] if method != FIRST_CHOICE else []
    assert main(["run", "first.yaml", *QUICK, *experts, *HERE]) == 0
    (metrics,) = tmp_path.glob("runs/two-*/metrics.jsonl")
    steps = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert all(math.isfinite(step["matching_loss"]) for step in steps)
    assert all(step.get("accepted", 1) and step.get("image_gradient_norm", 1) > 0 for step in steps)


def test_nothing_is_overwritten(archive, capsys):
    Path("mine.yaml").write_text("mine")
    assert main(["init", "mine", "--data", "two.npz"]) == 2
    assert Path("mine.yaml").read_text() == "mine" and "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--data", "cifa10"], 3, "did you mean 'cifar10'?"),
        (["--data", "folder"], 2, "--data FOLDER"),
        (["--data", "notes.txt"], 2, "neither a folder nor an archive"),
        (["--data", "gone.npz"], 3, "no such file"),
        (["--data", "two.npz", "--ipc", "99"], 2, "allowed: 1 to 14"),
        (["--data", "two.npz", "--ipc", "0"], 2, "allowed: 1 to 14"),
        (["--data", "two.npz", "--method", "trajectory"], 2, "did you mean 'trajectory_matching'?"),
        (["--data", "x" * 300], 3, "allowed: a folder"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(options, code, said, archive, capsys):
    Path("notes.txt").write_text("notes")
    assert main(["init", "first", *options]) == code
    assert said in capsys.readouterr().err and not Path("first.yaml").exists()


def test_a_known_data_set_that_is_not_here_is_fetched_by_what_is_typed_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "first", "--data", "cifar10"]) == 0
    assert "distributed-dd show first.yaml data.download=true" in capsys.readouterr().out
    assert config.read(Path("first.yaml"))["data"] == {"kind": "cifar10", "num_train": 5000}


def test_a_glance_counts_what_training_gets(pets, archive):
    """Catches a share of test or validation that is counted twice or not."""
    for data in ({"kind": "folder", "path": "pets", "size": 16}, {"kind": "arrays", "path": "two.npz"}, "digits"):
        source = build_member(DATA_SETS, data)
        glance, splits = glance_at(source), source.load()
        assert glance.num_classes == splits.num_classes and glance.channels == splits.image_shape[0]
        assert abs(glance.num_train - len(splits.train)) <= splits.num_classes
        fewest = min(len(splits.train.of_class(number)) for number in range(splits.num_classes))
        assert abs(glance.fewest_for_training - fewest) <= 3


@pytest.mark.parametrize("kind", [kind for kind in DATA_SETS.members if kind not in ("folder", "arrays")])
@pytest.mark.parametrize("gpu", [False, True])
def test_known_data_sets_have_a_first_configuration_on_either_machine(kind, gpu):
    drafted = draft({"kind": kind}, "datm", 1, gpu)
    side = drafted.glance.shorter_side
    assert side / 2 ** drafted.values["network"]["depth"] in (2, 3.5, 4)
    assert drafted.origin.startswith("cifar10/") == (gpu and drafted.glance.channels == 3 and side > 16)
    mirrored = "flip" in drafted.values["experts"].get("augment", {}).get("operations", ["flip"])
    assert mirrored == (drafted.glance.channels == 3)
