"""Evaluation of a set on other networks; import and export of sets and experts."""

import json
import os
import pickle
import shutil

import numpy
import pytest
import torch
from PIL import Image

import distributed_dd
from distributed_dd.cli import main
from tests.conftest import ROOT
from tests.end_to_end.test_run import HERE
from tests.references.records import rewritten
from tests.references.tables import unpadded


def evaluate(folder, *overrides):
    return main(["evaluate", str(folder), "controls=[]", *overrides, *HERE])


def test_a_set_is_scored_on_other_networks_and_what_is_done_is_not_done_again(finished, capsys):
    networks = "networks=[mlp,{kind: convnet, depth: 2, width: 4, norm: batch}]"
    assert evaluate(finished, networks, "num_networks=2") == 0
    result = json.loads((finished / "cross_architecture.json").read_text())
    assert [entry["network"]["kind"] for entry in result["networks"]] == ["mlp", "convnet"]
    for entry in result["networks"]:
        assert all(row["num_networks"] == 2 for row in entry["rows"])
        assert {"label_robust", "augmentation_robust"} <= set(entry["scores"])
    assert result["recipe"]["num_epochs"] == 3, "the recipe is the one frozen in the set"
    page = (finished / "cross_architecture.md").read_text()
    assert "| trained on | mlp | convnet depth=2 width=4 norm=batch |" in unpadded(page)
    capsys.readouterr()
    assert evaluate(finished, "networks=[mlp,lenet]", "num_networks=2") == 2  # 8x8 images are too small
    assert "16 pixels or more" in capsys.readouterr().err
    assert evaluate(finished, "networks=[mlp]", "num_networks=2") == 0
    assert "mlp: already evaluated" in capsys.readouterr().out


def test_a_set_that_came_alone_is_scored_without_the_rows_that_need_experts(finished, tmp_path, capsys):
    alone = tmp_path / "alone"
    shutil.copytree(finished / "distilled", alone)
    assert evaluate(alone, "networks=[mlp]", "num_networks=2", "no_augmentation=false") == 0
    assert "no experts" in capsys.readouterr().out
    (entry,) = json.loads((alone / "cross_architecture.json").read_text())["networks"]
    assert "random_real_soft_labels" not in {row["name"] for row in entry["rows"]}
    assert evaluate(alone, "networks=[mlp]", f"experts={finished.parent / 'experts'}", "num_networks=2") == 0
    (entry,) = json.loads((alone / "cross_architecture.json").read_text())["networks"]
    assert "random_real_soft_labels" in {row["name"] for row in entry["rows"]}


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("networks=[mpl]", 2, "did you mean 'mlp'"),
        ("networks=mlp", 2, "a list of networks"),
        ("network=[mlp]", 2, "did you mean 'networks'"),
        ("data.split_sead=1", 2, "did you mean 'split_seed'"),
    ],
)
def test_mistakes_in_an_evaluation_are_explained(finished, capsys, override, code, message):
    assert evaluate(finished, override) == code
    assert message in capsys.readouterr().err


def test_other_data_than_the_set_was_made_from_are_refused(finished, tmp_path, capsys):
    manifest = finished / "distilled" / "manifest.json"
    rewritten(manifest, lambda values: values["dataset"].update(sha256="0" * 64))
    assert evaluate(finished) == 5
    assert "not the one the set was made from" in capsys.readouterr().err


def test_a_set_survives_the_way_out_and_in(warm_readers, finished, tiny_yaml, tmp_path, capsys):
    (tmp_path / "pt").mkdir()
    (tmp_path / "pt" / "older.txt").write_text("")
    capsys.readouterr()
    assert main(["export", str(finished), "--to", str(tmp_path / "pt")]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"output:   {tmp_path / 'pt'} (pt: images_best.pt, labels_best.pt, lr_best.pt)"
    (tmp_path / "pt" / "older.txt").unlink()
    assert {f.name for f in (tmp_path / "pt").iterdir()} == {"images_best.pt", "labels_best.pt", "lr_best.pt"}
    to = tmp_path / "back"
    assert main(["import", str(tmp_path / "pt"), str(tiny_yaml), "--to", str(to)]) == 0
    before, after = distributed_dd.load_distilled(finished), distributed_dd.load_distilled(to)
    assert torch.equal(before.images, after.images) and before.learning_rate == after.learning_rate
    # Sorted by the label's own class, which need not be the class the image started from.
    assert torch.equal(after.targets, after.labels.argmax(1))
    capsys.readouterr()
    assert evaluate(to, "networks=[mlp]", "num_networks=1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "digits, imported, 1 image per class: test accuracy, %, 1 network" in lines
    table = [line for line in lines if line[:1] in "┏┃┡│└"]
    assert table and not any("±" in line for line in table)  # the spread over one network is unknown
    assert not any(line.endswith(" ") for line in lines)


def test_pictures_are_exported_in_natural_colours(finished, tmp_path):
    assert main(["export", str(finished), "--as", "images", "--to", str(tmp_path / "png")]) == 0
    distilled = distributed_dd.load_distilled(finished)
    pixels = distilled.preprocessing.invert(distilled.images).clamp(0, 1)
    picture = numpy.asarray(Image.open(tmp_path / "png" / "7" / "0000.png"))
    assert numpy.abs(picture / 255 - pixels[7, 0].numpy()).max() < 0.5 / 255 + 1e-6
    lines = [json.loads(line) for line in (tmp_path / "png" / "metadata.jsonl").read_text().splitlines()]
    assert [(tmp_path / "png" / line["file_name"]).is_file() for line in lines] == [True] * len(distilled.images)
    assert [line["label"] for line in lines] == distilled.targets.tolist() and lines[7]["class"] == "7"
    kept = torch.tensor([line["label_logits"] for line in lines])
    assert torch.equal(kept, distilled.labels)
    assert torch.allclose(torch.tensor([line["soft_label"] for line in lines]), distilled.labels.softmax(1))
    assert f"\n{distilled.learning_rate:.6g}: that" in (tmp_path / "png" / "README.md").read_text()
    assert main(["export", str(finished), "--as", "npz", "--to", str(tmp_path / "npz")]) == 0
    with numpy.load(tmp_path / "npz" / "distilled.npz") as arrays:
        assert numpy.array_equal(arrays["images"], distilled.images.numpy())
        assert arrays["pixels"].dtype == numpy.uint8 and arrays["class_names"].tolist() == list("0123456789")


def test_a_run_goes_to_the_hub_and_to_dd_ranking(finished, tiny_yaml, tmp_path, capsys, monkeypatch):
    assert main(["export", str(finished), "--as", "ddranking", "--to", str(tmp_path / "ddr")]) == 0
    assert {file.name for file in (tmp_path / "ddr").iterdir()} >= {"images.pt", "labels.pt", "lr.pt"}
    assert main(["export", str(finished), "--as", "huub"]) == 2 and "did you mean 'hub'" in capsys.readouterr().err
    report = json.loads((finished / "report.json").read_text())
    assert report["bytes_per_class"] == {"images": 64 * 4, "labels": 10 * 4}
    pytest.importorskip("datasets", reason="the extra [hub] is not installed")
    assert main(["export", str(finished), "--as", "hub", "hub.lisence=mit"]) == 2
    assert "did you mean 'license'" in capsys.readouterr().err
    hub = tmp_path / "hub"
    assert main(["export", str(finished), "--as", "hub", "hub.license=mit", "--to", str(hub)]) == 0
    card = (hub / "README.md").read_text()
    row = next(row for row in report["rows"] if row["name"] == "distilled")
    assert f"{100 * row['accuracy_mean']:.1f} ±" in card and "license: mit" in card
    assert main(["import", str(hub), str(tiny_yaml), "--to", str(tmp_path / "back")]) == 0
    before, after = distributed_dd.load_distilled(finished), distributed_dd.load_distilled(tmp_path / "back")
    assert torch.equal(before.images, after.images) and torch.equal(before.labels, after.labels)
    assert before.learning_rate == after.learning_rate


def test_experts_survive_the_way_out_and_in(tiny_yaml, tmp_path, capsys):
    assert main(["experts", str(tiny_yaml), *HERE]) == 0
    assert main(["export", str(tiny_yaml), "--to", str(tmp_path / "buffers")]) == 0
    (buffer,) = (tmp_path / "buffers").iterdir()
    content = torch.load(buffer, weights_only=True)
    assert buffer.name == "replay_buffer_0.pt" and len(content) == 2 and len(content[0]) == 5
    assert [tuple(p.shape) for p in content[0][0]] == [(16, 64), (16,), (10, 16), (10,)]
    assert main(["import", str(tmp_path / "buffers"), str(tiny_yaml), "--to", str(tmp_path / "theirs")]) == 0
    (theirs,) = (tmp_path / "theirs").iterdir()
    (ours,) = (tmp_path / "runs" / "experts").iterdir()
    from distributed_dd.trajectories.store import TrajectoryStore

    first, second = TrajectoryStore.at(ours).open(1), TrajectoryStore.at(theirs).open(1)
    assert all(torch.equal(first.checkpoint(e), second.checkpoint(e)) for e in range(5))
    # A run that uses them trains none and distils the same set.
    capsys.readouterr()
    assert main(["distill", str(tiny_yaml), f"experts.store={theirs}", "seed=0", *HERE]) == 0
    assert "0 trained" in capsys.readouterr().out
    assert main(["distill", str(tiny_yaml), *HERE]) == 0
    hashes = {f.read_bytes() for f in (tmp_path / "runs").glob("digits-*/distilled/distilled.safetensors")}
    assert len(hashes) == 1
    assert main(["distill", str(tiny_yaml), f"experts.store={theirs}", "experts.num_experts=3", *HERE]) == 2
    assert "holds 2" in capsys.readouterr().err
    assert main(["distill", str(tiny_yaml), f"experts.store={tmp_path}", *HERE]) == 3


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def buffer_of(tmp_path, damage):
    shapes = [(16, 64), (16,), (10, 16), (10,)]
    buffer = [[[torch.randn(s) for s in shapes] for _ in range(5)] for _ in range(2)]
    match damage:
        case "aliased":
            buffer[1] = [buffer[1][0]] * 5
        case "shape":
            buffer[0][2][2] = torch.randn(10, 17)
        case "missing parameter":
            buffer[0][2].pop()
        case "short":
            buffer[1].pop()
        case "flat":
            buffer = buffer[0]
        case "words":
            buffer[0][0][0] = "words"
    folder = tmp_path / "buffers"
    folder.mkdir()
    path = folder / "replay_buffer_0.pt"
    if damage == "pickle":
        path.write_bytes(pickle.dumps(Malicious(str(tmp_path / "ran"))))
    elif damage == "torch pickle":
        torch.save([[Malicious(str(tmp_path / "ran"))]], path)
    else:
        torch.save(buffer, path)
    return folder


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("aliased", "all 5 checkpoints are the same"),
        ("shape", "parameter 2 has shape (10, 17)"),
        ("missing parameter", "has 3 parameters"),
        ("short", "trajectory 1 has 4 checkpoints"),
        ("flat", "trajectory.checkpoint.parameter"),
        ("words", "a str at place '0.0.0'"),
        ("pickle", "is refused"),
        ("torch pickle", "is refused"),
    ],
)
def test_buffers_that_are_not_what_they_should_be_are_refused(
    warm_readers, tiny_yaml, tmp_path, capsys, damage, message
):
    folder = buffer_of(tmp_path, damage)
    assert main(["import", str(folder), str(tiny_yaml), "--to", str(tmp_path / "store")]) == 5
    assert message in capsys.readouterr().err
    assert not (tmp_path / "ran").exists(), "a pickle ran code"
    assert not list((tmp_path / "store").glob("*/manifest.json"))


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"images": torch.zeros(10, 3, 8, 8)}, 5, "(n, 1, 8, 8)"),
        ({"labels": torch.zeros(10, 7)}, 5, "(10, 10) logits"),
        ({"labels": torch.arange(10) + 1}, 5, "class numbers below 10"),
        ({"lr": torch.tensor(-1.0)}, 5, "one number above 0"),
        ({"images": torch.full((10, 1, 8, 8), float("nan"))}, 5, "not finite"),
        ({"labels": torch.zeros(10, dtype=torch.long)}, 2, "the set holds 0 to 10 of each class"),
    ],
)
def test_sets_that_do_not_fit_are_refused(warm_readers, tiny_yaml, tmp_path, capsys, change, code, message):
    content = {
        "images": torch.randn(10, 1, 8, 8),
        "labels": torch.arange(10),
        "lr": torch.tensor(0.02),
    } | change
    for name, tensor in content.items():
        torch.save(tensor, tmp_path / f"{name}_best.pt")
    assert main(["import", str(tmp_path), str(tiny_yaml), "--to", str(tmp_path / "set")]) == code
    assert message in capsys.readouterr().err and not (tmp_path / "set").exists()


def test_nothing_to_import_or_export_is_explained(tiny_yaml, tmp_path, capsys):
    assert main(["import", str(tmp_path), str(tiny_yaml)]) == 3
    assert "replay_buffer" in capsys.readouterr().err
    assert main(["export", str(tiny_yaml)]) == 3
    assert "2 of 2 experts are missing" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--as", "images"]) == 3
    assert str(ROOT) not in capsys.readouterr().err


def test_a_comparison_is_written_beside_a_run_and_not_into_it(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "copied" / finished.name)
    before = {path.relative_to(run) for path in run.rglob("*")}
    assert main(["report", str(run)]) == 0
    assert {path.relative_to(run) for path in run.rglob("*")} == before
    assert capsys.readouterr().out.strip().endswith(f"output:   {run.parent / 'comparison' / 'report.md'}")
    folder = run.parent / "comparison"
    assert {"accuracy.png", "accuracy.pdf", "matching_loss.pdf", "report.tex"} <= {one.name for one in folder.iterdir()}
    table, pdf = (folder / "report.tex").read_text(), (folder / "accuracy.pdf").read_bytes()
    assert r"\toprule" in table and r" $\pm$ " in table and "±" not in table and pdf.startswith(b"%PDF")
    assert main(["report", str(run)]) == 0 and (folder / "accuracy.pdf").read_bytes() == pdf
