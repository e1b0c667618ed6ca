"""Rows that are real images and never change: which images they are, that no update moves them, what is refused."""

import json
from functools import cache

import pytest
import torch

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.errors import ConfigError
from distributed_dd.evaluation.artefact import load_distilled
from distributed_dd.experiment import experiment_of, identity_of, values_of
from distributed_dd.experiment_run import Run
from distributed_dd.learning.chance import generator
from distributed_dd.learning.update_rules import is_by_row
from distributed_dd.outer.checkpoint import Checkpoints
from distributed_dd.outer.frozen import ByDifficulty, Frozen, first_of_class
from distributed_dd.outer.frozen_rows import frozen_images
from distributed_dd.sweeps.plan import planned
from distributed_dd.unroll import Alone
from tests.conftest import ROOT
from tests.contracts import small_worlds
from tests.contracts.small_worlds import PER_CLASS, POINTS, RankTools, over_ranks

NUM_CLASSES = len(small_worlds.TRAIN)
DM = POINTS["dm_frozen"]
FREPO = {"kind": "neural_features", "batch_size": 7, "ridge": 1e-3}
POINTS_WITH = {
    "sgd": DM,
    "adam": {**DM, "method": {**DM["method"], "image_optimizer": {"kind": "adam", "learning_rate": 0.01}}},
    "lamb": {**DM, "method": {**DM["method"], "image_optimizer": {"kind": "lamb", "learning_rate": 0.01}}},
    "learned labels": POINTS["datm_frozen"],
    "learned targets": {"method": FREPO, "set": {"frozen": {"share": 0.5}}},
    "a network that learns from the set": {**POINTS["dc"], "set": {"frozen": {"share": 0.75}}},
}


def run_of(folder, point, **more):
    values = {**small_worlds.COMMON, "output": str(folder), **point, **more}
    data = {"kind": "arrays", "path": str(small_worlds.data_in(folder)), "validation_fraction": 0.2}
    return Run(experiment=experiment_of({**values, "data": data}), cluster=InProcess())


@pytest.fixture(scope="module")
def run_with(tmp_path_factory):
    """Name of a point -> its run, with what it shares made, once."""
    folder = tmp_path_factory.mktemp("frozen")

    @cache
    def made(name):
        whole = run_of(folder, POINTS_WITH[name])
        whole.prepare()
        return whole

    return made


def rows_and_images(whole):
    """Which rows never change, and the real images in them, found by their pixels alone."""
    frozen, world = whole.experiment.set.frozen, whole.world
    rows = torch.tensor([i % PER_CLASS < frozen.share * PER_CLASS for i in range(world.num_images)])
    return rows, world.real.train.images[frozen_images(world).flatten()]


def after(whole, folder, num_steps=3):
    """Everything that is kept after some outer steps in one process."""
    checkpoints = small_worlds.begun(folder, whole.product.starting())
    workers = small_worlds.working(whole.method.job(whole.world, checkpoints))
    list(workers.outer_steps(0, num_steps))
    saved = checkpoints.saved(workers.save(num_steps))
    return {name: saved.part(name, (0, saved.num_rows)) for name in saved.names()}


@pytest.mark.parametrize("name", POINTS_WITH)
def test_frozen_rows_are_the_real_images_bit_by_bit_and_all_others_move(run_with, tmp_path, name):
    """Catches a rule that moves what has no gradient, an average or learned labels that were left out."""
    whole = run_with(name)
    start, end = whole.product.starting(), after(whole, tmp_path)
    rows, images = rows_and_images(whole)
    assert torch.equal(end["images"][rows], images) and 0 < rows.sum() < len(rows)
    learned = [n for n in whole.method.optimizers() if is_by_row(n)]
    for key in learned:
        assert torch.equal(end[key][rows], start[key][rows])
        moved = (end[key] != start[key]).flatten(1).any(1)
        assert moved.equal(~rows), key
    averages = [n for n in end if n.startswith("average.") and is_by_row(n)]
    assert bool(averages) == (name == "learned labels")
    for key in averages:
        assert torch.equal(end[key][rows], start[key.removeprefix("average.")][rows])
    momenta = [n for n in end if n.startswith(("momentum.", "mean.", "square.")) and is_by_row(n)]
    assert momenta and all(not end[n][rows].any() and end[n][~rows].any() for n in momenta)


@pytest.mark.parametrize("parted", [False, True])
@pytest.mark.parametrize("name", ["sgd", "lamb", "learned labels"])
def test_ranks_keep_the_same_rows_as_one_process(run_with, tmp_path, name, parted):
    """Catches rows counted from a rank's own first row. Three classes of four rows: a cut lies within a class."""
    whole = run_with(name)
    rows, images = rows_and_images(whole)

    def some_steps(ranks, folder):
        checkpoints = Checkpoints(folder, "small")
        place = ranks.layout.rank, ranks.layout.num_ranks
        saved = checkpoints.saved([checkpoints.write_shard(0, *place, 0, whole.product.starting())])
        worker = whole.method.job(whole.world, checkpoints).worker(saved, RankTools(ranks, parted))
        for step in range(2):
            worker.outer_step(step)
        return worker.learner.inner.kept()

    for ends in (over_ranks(2, 1, lambda r: some_steps(r, tmp_path)), [some_steps(Alone(), tmp_path / "alone")]):
        for end in ends:
            assert torch.equal(end["images"][rows], images)
            assert bool((end["images"] != whole.product.starting()["images"]).flatten(1).any(1)[~rows].all())


def test_images_are_those_of_the_window_hardest_first(run_with):
    """Against a ranking made here from the experts' own answers: catches easy taken for hard, and other epochs."""
    whole = run_with("learned labels")
    store, train = whole.prelude.store, whole.world.real.train
    errors = torch.zeros(len(train.targets), dtype=torch.float64)
    for expert in range(2):
        logits = whole.prelude.jury.logits(expert, 4).double()  # the experts have no epoch 10
        wanted = torch.nn.functional.one_hot(train.targets, NUM_CLASSES)
        errors += ((logits.softmax(1) - wanted) ** 2).sum(1).sqrt()
    assert store.open(0).has(4)
    for label, images in enumerate(frozen_images(whole.world).tolist()):
        own = [i for i in range(len(train.targets)) if train.targets[i] == label]
        hardest_first = sorted(own, key=lambda i: -errors[i])
        left_out = len(own) - round(0.9 * len(own))
        assert images == hardest_first[left_out : left_out + 2]
    start = whole.product.starting()
    seen = [next(i for i, x in enumerate(train.images) if torch.equal(x, image)) for image in start["images"]]
    assert len(set(seen)) == len(seen), "the rest is chosen too, and no image twice"
    assert torch.equal(start["labels"], whole.method.training_labels(whole.world)[seen])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (ByDifficulty(), [9, 8, 7]),
        (ByDifficulty(end=0.8), [7, 6, 5]),
        (ByDifficulty(start=0.2, pick="easiest"), [4, 3, 2]),
        (ByDifficulty(start=0.3, end=0.6, pick="random"), [5, 4, 3]),
    ],
)
def test_a_window_is_counted_from_the_easiest(how, expected):
    assert how.places(10, 3, generator(0, "test")).tolist() == expected
    assert how.available(10) >= 3


def test_a_share_is_rounded_half_up_and_rows_are_the_first_of_each_class():
    assert [Frozen(share=share).per_class(5) for share in (0.0, 0.09, 0.1, 0.5, 0.7, 0.89)] == [0, 0, 1, 3, 4, 4]
    assert first_of_class(1, 3, 2).tolist() == [True, False, False] * 2


DIFFICULT = {"kind": "difficulty"}
REFUSED = {
    "a generator": ("cgan", {"share": 0.5}, "set", "learns no set"),
    "nothing is left": ("dm", {"share": 0.9}, "set.frozen.share", "nothing is left to learn"),
    "nothing is frozen": ("dm", {"share": 0.1}, "set.frozen.share", "is none"),
    "all of them": ("dm", {"share": 1.0}, "set.frozen.share", "below 1"),
    "no experts": ("dm", {"share": 0.5, "images": DIFFICULT}, "set.frozen.images", "no experts"),
    "a narrow window": ("mtt", {"share": 0.5, "images": {**DIFFICULT, "end": 0.2}}, "set.frozen.images", "1 may be"),
    "an empty window": ("mtt", {"share": 0.5, "images": {**DIFFICULT, "start": 0.5, "end": 0.5}}, "end", "above start"),
    "a choice of nothing": ("mtt", {"images": DIFFICULT}, "set.frozen.images", "none are asked for"),
    "labels made anew": ("labels_of_the_target", {"share": 0.5}, "set.frozen.share", "keep their labels"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_frozen_is_refused_before_anything_starts(tmp_path, what):
    point, frozen, where, says = REFUSED[what]
    with pytest.raises(ConfigError) as caught:
        run_of(tmp_path, {**POINTS[point], "set": {"frozen": frozen}})
    assert caught.value.where.endswith(where) and says in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["small.npz"]


def test_the_default_is_said_nowhere(tmp_path):
    """Or every run of an older version would have another name, and would be made again."""
    bare = run_of(tmp_path, POINTS["dm"])
    said = run_of(tmp_path, POINTS["dm"], set={"frozen": {"share": 0.0}})
    assert bare.digest == said.digest != run_of(tmp_path, DM).digest
    for e in (bare.experiment, said.experiment):
        assert "set" not in values_of(e) and "set" not in identity_of(e)
    assert experiment_of(values_of(run_of(tmp_path, DM).experiment)) == run_of(tmp_path, DM).experiment


def test_manifest_and_report_say_which_images_are_real(tmp_path):
    whole = run_of(tmp_path, DM)
    with whole.opened():
        whole.distill()
        report = whole.evaluate()
    distilled = load_distilled(whole.folder.path)
    frozen = distilled.manifest["frozen"]
    assert frozen["per_class"] == 1 and report["frozen"] == frozen
    for label, (index,) in enumerate(frozen["training_images"]):
        assert torch.equal(distilled.images[label * PER_CLASS], whole.world.real.train.images[index])
        assert whole.world.real.train.targets[index] == label
    assert "Frozen: 1 of the 4 images of each class are real" in whole.folder.report_page.read_text()
    assert json.loads((whole.folder.path / "distilled" / "manifest.json").read_text())["frozen"] == frozen


def test_a_sweep_of_the_share_begins_with_none(tmp_path):
    """Catches a base that is not found in the space because its configuration leaves out what says nothing."""
    file = tmp_path / "sweep.yaml"
    file.write_text(
        f"base: {ROOT}/configs/digits/dm_ipc10.yaml\nimages_per_class: [10]\nnum_trials: 2\nsearch: {{kind: grid}}\n"
        "space: {set.frozen.share: {kind: choice, values: [0.0, 0.5]}}\n"
    )
    plan = planned(file, [])
    points = [plan.space.settings(point, plan.values(10)) for point in plan.points(10)]
    assert points == [{"set.frozen.share": 0.0}, {"set.frozen.share": 0.5}]
