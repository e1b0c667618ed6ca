"""Protocols by name: what each is, and what rows become under it."""

import json
from dataclasses import replace

import pytest
import torch

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.cli import main
from distributed_dd.data import Images
from distributed_dd.data.material import Material
from distributed_dd.data.splits import Splits
from distributed_dd.data.whitening import Standardise
from distributed_dd.evaluation import teacher as teachers
from distributed_dd.evaluation.distilled_set import DistilledSet
from distributed_dd.evaluation.protocols import PROTOCOLS, in_words
from distributed_dd.evaluation.rows import Entry, candidates
from distributed_dd.evaluation.scoring import score_rows
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.evaluation.teacher import teacher_of
from distributed_dd.family import build, identity, plain
from distributed_dd.learning.augment import Identity, Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.loop import Recipe
from distributed_dd.learning.networks.mlp import MLP
from distributed_dd.learning.optimizers import SGD
from distributed_dd.outer.world import World
from tests.end_to_end.test_run import HERE, run_folder

NUM_CLASSES = 3
SHORT = {"dc": "num_epochs", "dsa": "num_epochs", "datm": "num_epochs", "rded": "num_epochs"}


def evaluation(kind, **settings):
    values = {"num_networks": 2, "num_validation_networks": 1, "num_epochs": 3, "num_epochs_full_data": 1}
    values |= {"controls": [], "protocol": {"kind": kind, **settings}}
    return build(Evaluation, values, "evaluate")


@pytest.mark.parametrize(
    ("kind", "num_images", "epochs", "batch", "rate"),
    [
        ("dc", 10, 301, 256, 0.01),
        ("dsa", 500, 1001, 256, 0.01),
        ("datm", 100, 1001, 128, 0.01),
        ("frepo", 10, 1000, 500, 3e-4),
        ("frepo", 100, 2000, 500, 3e-4),
        ("frepo", 150, 20_000, 500, 3e-4),
        ("frepo", 1000, 5000, 500, 3e-4),
        ("kip", 100, 5000, 100, 0.0068),
        ("kip", 500, 1000, 100, 0.0068),
        ("rded", 100, 300, 100, 1e-3),
    ],
)
def test_protocols_are_as_published(kind, num_images, epochs, batch, rate):
    recipe = evaluation(kind).recipe(10, num_images)
    assert (recipe.num_epochs, recipe.batch_size, recipe.optimizer.learning_rate) == (epochs, batch, rate)
    if kind in ("dc", "dsa", "datm"):
        assert recipe.optimizer == SGD(0.01, 0.9, 5e-4)
        assert isinstance(recipe.augment, Identity if kind == "dc" else Siamese)


def test_a_way_of_ones_own_can_be_any_of_the_others():
    own = {"kind": "custom", "labels": "teacher", "num_epochs": 300, "batch_size": 100, "mixing": "cutmix"}
    own |= {"optimizer": {"kind": "adamw", "learning_rate": 1e-3}, "schedule": "cosine", "loss": "distillation"}
    made = build(Evaluation, {"protocol": own}, "evaluate")
    assert made.recipe(10, 100) == build(Evaluation, {"protocol": "rded"}, "evaluate").recipe(10, 100)
    assert made.protocol.labels == "teacher" and made.protocol.learned_rate


def test_ours_is_the_recipe_itself_and_changes_no_digest():
    """Results that were made before protocols had names keep their digests."""
    ours = Evaluation()
    assert "protocol" not in identity(ours) and plain(ours)["protocol"] == {"kind": "ours"}
    assert type(ours.recipe(10, 10)) is Recipe and ours.recipe(10, 10) == ours.bare()
    assert identity(evaluation("dsa"))["protocol"] == {"kind": "dsa", "num_epochs": 1001, "batch_size": 256}


def test_operations_that_do_not_suit_the_data_stay_out():
    own = replace(evaluation("dsa"), augment=Siamese(("crop", "rotate")))
    assert own.recipe(10, 10).augment.operations == ("crop", "rotate")
    frepo = replace(evaluation("frepo"), augment=Siamese(("crop", "rotate")))
    assert not frepo.recipe(10, 10).augment.flip and evaluation("frepo").recipe(10, 10).augment.flip


@pytest.fixture
def material():
    def part(count, key):
        targets = torch.arange(count) % NUM_CLASSES
        noise = torch.rand(count, 1, 4, 4, generator=generator(0, key))
        return Images(0.5 * noise + targets.reshape(-1, 1, 1, 1) / 4, targets)

    names = tuple("abc")
    parts = {name: part(30, name) for name in ("train", "validation", "test")}
    return Material(Splits(name="small", class_names=names, sha256="0", **parts), Standardise())


def world(material, evaluate):
    return World(
        seed=0,
        network=MLP(depth=1, width=4),
        image_shape=(1, 4, 4),
        num_classes=NUM_CLASSES,
        images_per_class=2,
        num_outer_steps=1,
        preprocessing=Standardise(),
        evaluate=evaluate,
        output=None,
        real=material,
    )


@pytest.fixture
def distilled(material):
    """Two images of each class; the labels of the first say another class than its own."""
    images = torch.randn(6, 1, 4, 4, generator=generator(1))
    classes = torch.tensor([0, 0, 1, 1, 2, 2])
    labels = torch.nn.functional.one_hot(classes, NUM_CLASSES) * 2.0
    labels[0] = torch.tensor([0.0, 2.0, 0.0])
    fitted = {f"preprocessing.{name}": value for name, value in material.fitted.tensors().items()}
    tensors = {"images": images, "labels": labels, "classes": classes, "learning_rate": torch.tensor(0.125), **fitted}
    return DistilledSet(tensors, {"sha256": {}}, "soft")


def rows(material, distilled, kind):
    last = {"images": distilled.images, "labels": distilled.labels, "classes": distilled.targets}
    entry = Entry(
        distilled=distilled,
        last=last,
        world=world(material, evaluation(kind)),
        start=last,
    )
    return {row.name: row for row in candidates(entry, torch.zeros(30, NUM_CLASSES))}


@pytest.mark.parametrize("kind", ["hard_labels", "dc", "dsa"])
def test_hard_labels_are_classes_of_the_set_and_never_what_its_logits_prefer(material, distilled, kind):
    made = rows(material, distilled, kind)
    assert {row.label_kind for row in made.values()} == {"hard"}
    assert not {"distilled_hard_labels", "random_real_soft_labels"} & set(made)
    for name in ("distilled", "distilled_last_step", "starting_set"):
        assert torch.equal(made[name].sets[0][1], distilled.targets), name
    learned = kind == "hard_labels"
    assert made["distilled"].learning_rates == ((0.125,) if learned else (0.01,))
    assert made["random_real"].learning_rates == ((0.01, 0.125) if learned else (0.01,))


def test_a_teacher_labels_every_row_and_own_labels_have_both_kinds(material, distilled):
    assert {row.label_kind for row in rows(material, distilled, "rded").values()} == {"teacher"}
    own = rows(material, distilled, "datm")
    assert {"distilled_hard_labels", "random_real_soft_labels"} <= set(own)
    assert own["distilled"].learning_rates == (0.125,) and torch.equal(own["distilled"].sets[0][1], distilled.labels)


@pytest.mark.parametrize("kind", PROTOCOLS.members)
def test_every_protocol_scores_every_row(material, distilled, kind):
    short = {name: 2 for name in ("num_epochs", "num_steps") if name in plain(evaluation(kind).protocol)}
    evaluate = evaluation(kind, **short)
    entry = Entry(distilled=distilled, last=None, world=world(material, evaluate))
    where = (InProcess(), ConsoleProgress())
    scored, _ = score_rows(candidates(entry), MLP(depth=1, width=4), evaluate, 0, material, *where)
    again, _ = score_rows(candidates(entry), MLP(depth=1, width=4), evaluate, 0, material, *where)
    assert [row["accuracies"] for row in scored] == [row["accuracies"] for row in again]
    assert all(0 <= accuracy <= 1 for row in scored for accuracy in row["accuracies"])
    words = in_words(evaluate.protocol, evaluate.recipe(NUM_CLASSES, 6))
    assert words.startswith(f"Protocol {kind}: {2 if short else 3} epochs")


def test_a_teacher_is_trained_once(material, monkeypatch):
    evaluate = evaluation("rded")
    arguments = (MLP(depth=1, width=4), evaluate, 0, material, InProcess(), ConsoleProgress())
    first = teacher_of(*arguments)
    monkeypatch.setattr(teachers, "_trained", lambda *_: pytest.fail("trained again"))
    assert torch.equal(teacher_of(*arguments), first)
    assert teacher_of(MLP(depth=1, width=4), evaluation("ours"), *arguments[2:]) is None


def test_a_report_names_its_protocol_and_a_folder_is_scored_by_another(tiny_yaml, capsys):
    short = ["evaluate.protocol={kind: dsa, num_epochs: 2}", "evaluate.num_networks=1", "num_outer_steps=3"]
    assert main(["run", str(tiny_yaml), *short, *HERE]) == 0
    folder = run_folder(tiny_yaml)
    report = json.loads((folder / "report.json").read_text())
    assert report["protocol"] == {"kind": "dsa", "num_epochs": 2, "batch_size": 256}
    assert {row["labels"] for row in report["rows"]} == {"hard"}
    line = "Protocol dsa: 2 epochs, batches of 256, sgd at 0.01, class numbers as labels."
    assert line in (folder / "report.md").read_text()
    assert line in " ".join(capsys.readouterr().out.split())
    few = ["num_networks=1", "full_data=false", "no_augmentation=false"]
    assert main(["evaluate", str(folder), "protocol={kind: dc, num_epochs: 2}", "controls=[herding]", *few, *HERE]) == 0
    page = (folder / "cross_architecture-dc.md").read_text()
    assert "Protocol dc: 2 epochs" in page and "herding" in page and "mlp depth=2 width=16" in page, "the run's network"
    title = "digits, datm, 1 image per class: test accuracy, %, 1 network, protocol dc"
    assert title in " ".join(capsys.readouterr().out.split())
    assert not (folder / "cross_architecture.json").exists()
    assert main(["evaluate", str(folder), "protocol=dcc", *few, *HERE]) == 2
    assert "did you mean 'dc'" in capsys.readouterr().err
