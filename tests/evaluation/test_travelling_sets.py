"""A set on its way out and in: the hub's form, labels in few bits, DD-Ranking's files."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from distributed_dd.durable import sha256_of
from distributed_dd.errors import ConfigError, IntegrityError
from distributed_dd.evaluation.ddranking_export import as_ddranking
from distributed_dd.evaluation.distilled_set import DistilledSet
from distributed_dd.evaluation.hub_card import card_text, size_category
from distributed_dd.evaluation.hub_export import CARD, DATA, PREPROCESSING, HubExport, as_hub
from distributed_dd.evaluation.published_sets.coded_labels import Coded, coded, cost, decoded
from distributed_dd.evaluation.robustness import scores
from distributed_dd.evaluation.sizes import bytes_per_class
from distributed_dd.learning.classes import hard_logits
from tests.evaluation.test_published_sets import CLASSES, FITTED, SEEN, SHAPE, SOFT, SPLITS, taken

# Numbers outside the pixels' range, which no picture keeps.
IMAGES = SEEN * 1.7 - 0.3


def distilled_set(labels=SOFT):
    manifest = {
        "method": "datm",
        "dataset": {"name": "digits", "sha256": "0123"},
        "images_per_class": 2,
        "image_shape": list(SHAPE),
        "class_names": list(SPLITS.class_names),
        "network": {"kind": "mlp"},
        "evaluation": {"num_epochs": 3},
        "preprocessing": {"kind": "standardise"},
        "learning_rate": 0.1,
    }
    parts = {f"preprocessing.{name}": part for name, part in FITTED.tensors().items()}
    rate = torch.tensor(0.0123)
    tensors = {"images": IMAGES, "labels": labels, "classes": CLASSES, "learning_rate": rate, **parts}
    return DistilledSet(tensors, manifest, "soft")


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    return pytest.importorskip("datasets", reason="the extra [hub] is not installed")


@pytest.mark.parametrize("labels", [SOFT, hard_logits(CLASSES, 10)], ids=["soft", "hard"])
def test_a_set_survives_the_hub_bit_for_bit(tmp_path, datasets, labels):
    """Catches rounding by the picture, another order, a lost learning rate and labels that are taken for others."""
    before, folder = distilled_set(labels), tmp_path / "hub"
    as_hub(before, None, HubExport(), folder)
    after, _ = taken(folder)
    assert torch.equal(after["images"], before.images) and torch.equal(after["labels"], before.labels)
    assert torch.equal(after["classes"], CLASSES) and float(after["learning_rate"]) == before.learning_rate
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert ("soft_label" in rows.column_names) == (labels is SOFT)
    assert rows.features["label"].names == list(SPLITS.class_names) and rows[0]["image"].size == (8, 8)
    rows = rows.with_format("torch")
    assert torch.equal(rows["values"][:], before.images) and torch.equal(rows["label"][:], CLASSES)
    if labels is SOFT:
        assert torch.equal(rows["soft_label"][:], SOFT)
    card = (folder / CARD).read_text()
    front = card.split("---\n")[1]
    assert "license: unknown" in front and "image-classification" in front and "n<1K" in front
    assert sha256_of(folder / DATA) in card and "Bytes per class: images 512, labels" in card
    fitted = load_file(folder / PREPROCESSING)
    assert all(torch.equal(fitted[name], part) for name, part in FITTED.tensors().items())


def test_what_a_stranger_saves_again_is_asked_about_and_then_the_same(tmp_path, datasets):
    as_hub(distilled_set(), None, HubExport(), tmp_path / "hub")
    rows = datasets.load_dataset(str(tmp_path / "hub"), split="train", cache_dir=str(tmp_path / "cache"))
    rows.save_to_disk(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"set\.values"):
        taken(tmp_path / "saved")
    after, _ = taken(tmp_path / "saved", values="seen")
    assert torch.equal(after["images"], IMAGES) and torch.equal(after["labels"], SOFT)


@pytest.mark.parametrize(("k", "bits"), [(3, 8), (10, 16)])
def test_labels_on_the_hub_in_few_bits(tmp_path, datasets, k, bits):
    as_hub(distilled_set(), None, HubExport(labels="top_k", top_k=k, bits=bits, license="mit"), tmp_path)
    after, said = taken(tmp_path)
    assert torch.equal(after["images"], IMAGES) and f"the {k} likeliest classes in {bits} bits" in said
    few = coded(SOFT, k, bits)
    assert torch.equal(after["labels"], decoded(few, 10))
    card = (tmp_path / CARD).read_text()
    assert f"KL divergence of {cost(SOFT, decoded(few, 10))['kl_divergence']:.3g} nats" in card
    assert f"labels {few.num_bytes // 10:,}" in card and "license: mit" in card
    with pytest.raises(ConfigError, match="at most 10 classes"):
        as_hub(distilled_set(), None, HubExport(labels="top_k", top_k=11), tmp_path)


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ConfigError, match="needs the library datasets") as error:
        as_hub(distilled_set(), None, HubExport(), tmp_path / "hub")
    assert "pip install 'datasets>=4'" in str(error.value) and not (tmp_path / "hub").exists()


# -- labels in few bits ----------------------------------------------------------------------------------------------


def test_coded_labels_by_hand():
    probabilities = torch.tensor([[0.6, 0.3, 0.08, 0.02]])
    few = coded(probabilities.log(), 2, 8)
    assert few.classes.tolist() == [[0, 1]] and few.levels.tolist() == [[153, 76]] and few.num_bytes == 4
    rest = (255 - 153 - 76) / 255 / 2
    expected = torch.tensor([[153 / 255, 76 / 255, rest, rest]])
    assert torch.allclose(decoded(few, 4).softmax(1), expected, atol=1e-6)
    lost = cost(probabilities.log(), expected.log())
    assert lost["kl_divergence"] == pytest.approx(float((probabilities * (probabilities / expected).log()).sum()), 1e-5)
    assert lost["absolute_change"] == pytest.approx(float((probabilities - expected).abs().mean()), 1e-5)


def test_more_classes_and_bits_lose_less_and_all_of_them_next_to_nothing():
    lost = [cost(SOFT, decoded(coded(SOFT, *how), 10))["kl_divergence"] for how in ((1, 8), (3, 8), (5, 16), (10, 16))]
    assert lost == sorted(lost, reverse=True) and lost[-1] < 1e-3
    sure = hard_logits(CLASSES, 10)
    assert cost(sure, decoded(coded(sure, 1, 8), 10))["kl_divergence"] < 0.01


def test_coded_columns_that_do_not_fit_are_refused():
    few = coded(SOFT, 3, 8)
    columns = {"top_k_classes": few.classes, "top_k_probabilities": few.levels}
    assert torch.equal(Coded.of_columns([columns], {"bits": 8}, "x").levels, few.levels)
    for changed, about in (
        ({"top_k_probabilities": few.levels + 250}, {"bits": 8}),
        ({"top_k_classes": few.classes[:, :2]}, {"bits": 8}),
        ({}, {"bits": 7}),
        ({}, None),
    ):
        with pytest.raises(IntegrityError, match="do not fit each other"):
            Coded.of_columns([columns | changed], about, "x")
    with pytest.raises(IntegrityError, match="goes up to"):
        decoded(Coded(few.classes + 5, few.levels, 8), 10)


def test_the_card_says_what_was_reached_and_what_is_not_known():
    about = dict(
        manifest=distilled_set().manifest,
        sha256={"a": "beef"},
        sizes={"images": 512, "labels": 80},
        learning_rate=0.0123,
        columns=["image", "label", "values", "soft_label"],
        lost=None,
    )
    assert "No report lies beside" in card_text(report=None, **about)
    row = {"name": "distilled", "labels": "soft", "accuracy_mean": 0.9, "accuracy_std": 0.01, "num_networks": 5}
    card = card_text(report={"rows": [row], "num_test": 540}, **about)
    assert "90.0 ± 1.0" in card and "540 test images" in card and "softmax(1)" in card and "0.0123" in card
    about["manifest"] = {**about["manifest"], "distillation": {"imported": {"a": "b"}}}
    assert "is not recorded" in card_text(report=None, **about) and "datm" not in card_text(report=None, **about)
    assert [size_category(n) for n in (999, 1000, 10**5)] == ["n<1K", "1K<n<10K", "100K<n<1M"]


def test_bytes_per_class_by_hand():
    assert bytes_per_class(torch.zeros(20, 3, 4, 4), torch.zeros(20, 10)) == {
        "images": 2 * 48 * 4,
        "labels": 2 * 10 * 4,
    }


# -- DD-Ranking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [SOFT, hard_logits(CLASSES, 10)], ids=["soft", "hard"])
def test_files_for_dd_ranking(tmp_path, labels):
    as_ddranking(distilled_set(labels), tmp_path)
    content = {name: torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("images", "labels", "lr")}
    assert torch.equal(content["images"], IMAGES) and float(content["lr"]) == pytest.approx(0.0123)
    assert torch.equal(content["labels"], SOFT if labels is SOFT else CLASSES)
    script = (tmp_path / "call_ddranking.py").read_text()
    compile(script, "call_ddranking.py", "exec")
    assert ("LabelRobustScoreSoft" in script) == (labels is SOFT) and "ipc=2" in script
    assert "DD-Ranking has no data set digits" in script


ACCURACIES = {
    "full_data": 0.97,
    "distilled_hard_labels": 0.81,
    "distilled": 0.88,
    "random_real_soft_labels": 0.74,
    "distilled_no_augmentation": 0.83,
    "random_real_soft_labels_no_augmentation": 0.71,
}


def test_scores_are_normalised_network_by_network_as_the_package_does():
    """Catches a score of mean accuracies: the exponential bends."""
    two = {name: [value - 0.1, value + 0.05] for name, value in ACCURACIES.items()} | {"full_data": [0.9, 0.99]}
    each = [scores({name: values[i] for name, values in two.items()}, soft=True) for i in range(2)]
    both = scores(two, soft=True)
    assert both == pytest.approx({name: (each[0][name] + each[1][name]) / 2 for name in both})
    means = {name: sum(values) / 2 for name, values in two.items()}
    assert both["label_robust"] > scores(means, soft=True)["label_robust"]
    assert both["hard_label_recovery"] == pytest.approx(scores(means, soft=True)["hard_label_recovery"])


def of_ddranking(cls, answers):
    """What ``compute_metrics`` of the package makes of accuracies, without its training."""
    score = object.__new__(cls)
    vars(score).update(num_eval=1, use_dist=False, rank=0, ipc=1, num_classes=2, save_path="scores.csv", dst_train=None)
    vars(score).update(label_type="soft", soft_label_mode="M", eval_full_data=True, **answers)
    return score.compute_metrics(image_tensor=torch.zeros(1), soft_labels=None, syn_lr=0.1)


@pytest.mark.slow
def test_scores_are_those_of_the_package_from_the_same_accuracies(tmp_path, monkeypatch):
    """Catches another weight, sign or normalisation than DD-Ranking 0.2's own code has."""
    monkeypatch.chdir(tmp_path)
    metrics = pytest.importorskip("ddranking.metrics", reason="ddranking is not installed")
    ours, a = scores(ACCURACIES, soft=True), SimpleNamespace(**ACCURACIES)

    def alternating(*values):
        left = list(values)
        return lambda **about: (left.pop(0), 0.1)

    label = of_ddranking(
        metrics.LabelRobustScoreSoft,
        {
            "_compute_hard_label_metrics_helper": alternating(a.distilled_hard_labels, a.full_data),
            "_compute_soft_label_metrics_helper": alternating(a.distilled, a.random_real_soft_labels),
            "_get_random_data_helper": lambda eval_iter: (None, None, None),
        },
    )
    assert label["hard_label_recovery_mean"] == pytest.approx(ours["hard_label_recovery"], abs=1e-12)
    assert label["improvement_over_random_mean"] == pytest.approx(ours["improvement_over_random"], abs=1e-12)
    assert label["label_robust_score_mean"] == pytest.approx(ours["label_robust"], abs=1e-12)
    bare = (a.distilled_no_augmentation, a.random_real_soft_labels_no_augmentation)
    augmentation = of_ddranking(
        metrics.AugmentationRobustScore,
        {
            "_compute_with_aug_metrics_helper": alternating(a.distilled, a.random_real_soft_labels),
            "_compute_without_aug_metrics_helper": alternating(*bare),
            "_get_random_data_helper": lambda eval_iter: (None, None, None, None),
        },
    )
    assert augmentation["augmentation_robust_score_mean"] == pytest.approx(ours["augmentation_robust"], abs=1e-12)
    print(json.dumps({"ours": ours, "label": label, "augmentation": augmentation}, default=float, indent=1))
