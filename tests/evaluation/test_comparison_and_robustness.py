"""Runs side by side, and DD-Ranking's scores."""

import csv
import io
import json
from math import e

import pytest

from distributed_dd.cli import main
from distributed_dd.errors import MissingInputError
from distributed_dd.evaluation.comparison import as_csv, collect, flat, page, published, table
from distributed_dd.evaluation.robustness import normalised, scores
from distributed_dd.evaluation.scoring import row
from distributed_dd.methods import words_by_kind
from tests.references.tables import unpadded


def finished(folder, method="datm", per_class=10, accuracy=0.6, configuration=None):
    """A run folder as far as a comparison reads it."""
    (folder / "distilled").mkdir(parents=True)
    rows = [
        row("distilled", "convnet", "soft", [accuracy - 0.01, accuracy + 0.01]),
        row("random_real", "convnet", "hard", [0.3, 0.3]),
        row("expert", "convnet", "hard", [0.8]),
    ]
    report = {
        "dataset": "cifar10",
        "method": method,
        "images_per_class": per_class,
        "rows": rows,
        "best_step": 1,
        "num_test": 10_000,
    }
    (folder / "report.json").write_text(json.dumps(report))
    manifest = {"configuration": configuration or {"seed": 0}}
    (folder / "distilled" / "manifest.json").write_text(json.dumps(manifest))
    lines = [{"step": s, "matching_loss": 1 / s, "student_learning_rate": 0.1, "start_epoch": 2} for s in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def runs(tmp_path):
    finished(tmp_path / "runs" / "b", "mtt", 10, 0.5)
    finished(tmp_path / "runs" / "a", "datm", 10, 0.6)
    finished(tmp_path / "runs" / "c", "datm", 1, 0.4)
    finished(tmp_path / "runs" / "d", "datm", 10, 0.7, {"seed": 1})
    (tmp_path / "runs" / "unfinished").mkdir()
    return tmp_path / "runs"


def test_the_table_has_a_line_per_run_in_order_with_what_was_published(runs):
    header, lines = table(collect([runs]), words_by_kind())
    assert [line[0] for line in lines] == [
        "cifar10 ipc1 datm",
        "cifar10 ipc10 datm seed=0",
        "cifar10 ipc10 datm seed=1",
        "cifar10 ipc10 mtt",
    ]
    cells = dict(zip(header, lines[1], strict=True))
    assert cells["distilled"] == "60.0 ± 1.4" and cells["random real"] == "30.0 ± 0.0"
    assert cells["published"] == "66.8" and lines[3][-1] == "65.4"


def test_a_column_that_some_run_has_is_there_for_all_and_one_that_none_has_is_left_out(runs):
    assert "full data" not in table(collect([runs]), words_by_kind())[0]
    report = runs / "b" / "report.json"
    values = json.loads(report.read_text())
    values["rows"].append(row("full_data", "convnet", "hard", [0.8, 0.8]))
    report.write_text(json.dumps(values))
    header, lines = table(collect([runs]), words_by_kind())
    cells = [dict(zip(header, line, strict=True))["full data"] for line in lines]
    assert cells == ["-", "-", "-", "80.0 ± 0.0"]


def test_a_copy_of_the_data_under_another_name_has_no_published_figure():
    assert published("cifar10-jpeg", "datm") == {} and published("cifar10", "datm")[10] == 66.8


def test_a_figure_not_read_in_its_source_is_marked(tmp_path):
    finished(tmp_path / "runs" / "a", "mtt", 1)
    report = tmp_path / "runs" / "a" / "report.json"
    report.write_text(report.read_text().replace("cifar10", "mnist"))
    assert table(collect([tmp_path / "runs"]), words_by_kind())[1][0][-1] == "91.4 (unconfirmed)"


def test_csv_and_json_hold_every_row(runs, tmp_path):
    lines = flat(collect([runs]))
    read = list(csv.DictReader(io.StringIO(as_csv(lines))))
    assert len(read) == 4 * 3 and float(read[0]["accuracy_mean"]) == pytest.approx(0.4)


def test_the_command_writes_tables_and_plots(runs, tmp_path, capsys):
    assert main(["report", str(runs), "--to", str(tmp_path / "out")]) == 0
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {
        "report.md",
        "report.csv",
        "report.json",
        "accuracy.png",
        "matching_loss.png",
        "student_learning_rate.png",
        "start_epoch.png",
        "report.tex",
        "accuracy.pdf",
        "matching_loss.pdf",
        "student_learning_rate.pdf",
        "start_epoch.pdf",
    }
    assert "cifar10 ipc10 mtt" in capsys.readouterr().out
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| cifar10 ipc10 mtt | 50.0 ± 1.4 |" in unpadded(text) and "cifar10 10000" in text
    # A comparison inside the folder it compares is not taken for a run.
    assert main(["report", str(runs)]) == 0
    assert main(["report", str(runs)]) == 0
    assert len(collect([runs])) == 4


def test_the_page_names_the_number_of_networks(runs):
    assert "over 2 fresh networks" in page(collect([runs]), [], words_by_kind())


def test_a_folder_without_a_finished_run_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingInputError):
            collect([path])


def test_robustness_scores_are_their_formulas():
    rows = {
        "distilled": 0.7,
        "distilled_hard_labels": 0.5,
        "random_real": 0.3,
        "random_real_soft_labels": 0.6,
        "full_data": 0.9,
        "distilled_no_augmentation": 0.65,
        "random_real_soft_labels_no_augmentation": 0.5,
        "random_real_no_augmentation": 0.2,
    }
    found = scores(rows, soft=True)
    assert found["hard_label_recovery"] == pytest.approx(0.4)
    assert found["improvement_over_random"] == pytest.approx(0.1)
    alpha = 0.5 * 0.1 - 0.5 * 0.4
    assert found["label_robust"] == pytest.approx((e**alpha - 1 / e) / (e - 1 / e))
    beta = 0.5 * 0.1 + 0.5 * 0.15
    assert found["augmentation_robust"] == pytest.approx((e**beta - 1 / e) / (e - 1 / e))
    hard = scores(rows, soft=False)
    assert hard["improvement_over_random"] == pytest.approx(0.4)
    assert normalised(-1) == 0 and normalised(1) == 1
    del rows["full_data"]
    assert "label_robust" not in scores(rows, soft=True)
