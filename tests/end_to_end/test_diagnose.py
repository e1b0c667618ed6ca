"""`distributed-dd diagnose` as a user types it: of a configuration, killed on the way, and of a sweep."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from distributed_dd import diagnosing
from distributed_dd.cli import main
from distributed_dd.data.material import Material
from distributed_dd.durable import write_json
from distributed_dd.evaluation import fits
from distributed_dd.methods.distribution_matching import DistributionSteps
from distributed_dd.search.study import Study, TrialRecord
from tests.conftest import ROOT, tiny_gan_text, tiny_text

HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
SMALL = ["diagnose.num_sets=8", "diagnose.num_draws=3", "diagnose.num_epochs=20"]
DM = {"kind": "distribution_matching", "batch_size": 32, "image_optimizer": {"learning_rate": 1.0}}


@pytest.fixture(autouse=True)
def _no_test_split(monkeypatch):
    """Whoever looks at test images before the evaluation fails here."""

    def refuse(self):
        raise AssertionError("the test split was touched")

    monkeypatch.setattr(Material, "test", property(refuse))


@pytest.fixture
def dm_yaml(tmp_path):
    """Distribution matching on the tiny experiment, with a network that has features."""
    values = yaml.safe_load(tiny_text(tmp_path / "runs"))
    values.pop("experts")
    values |= {"method": DM, "network": {"kind": "convnet", "depth": 2, "width": 4}}
    path = tmp_path / "dm.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def record_of(file: Path) -> dict:
    (path,) = (file.parent / "runs/diagnoses").glob("*/diagnosis.json")
    return json.loads(path.read_text())


def test_a_diagnosis_of_experts_trains_only_what_it_asks_and_begins_no_run(tiny_yaml, capsys):
    assert main(["diagnose", str(tiny_yaml), *HERE, *SMALL, "experts.num_experts=3"]) == 0
    out = capsys.readouterr().out
    assert "2 trained, 0 reused" in out and "experts: 1 still to be made" in out
    assert "rho = " in out and "to beat: " in out and "for 6 outer steps" in out
    assert "20 of 3 epochs" not in out and "3 epochs, 257 images" in out
    assert out.strip().splitlines()[-1].endswith("diagnosis.json")
    record = record_of(tiny_yaml)
    assert len(record["pairs"]) == 8 and record["facts"]["outer_steps"] == [1, 3, 5]
    runs = tiny_yaml.parent / "runs"
    assert sorted(path.name for path in runs.iterdir()) == ["diagnoses", "experts"]
    folder = next((runs / "diagnoses").iterdir())
    assert {path.name for path in folder.iterdir()} >= {"diagnosis.json", "diagnosis.png", "scored.jsonl"}
    assert not (folder / "checkpoint").exists(), "the outer steps that were timed are thrown away"


def test_the_same_command_does_nothing_again_and_other_settings_reuse_networks(dm_yaml, capsys, monkeypatch):
    assert main(["diagnose", str(dm_yaml), *HERE, *SMALL]) == 0
    first = record_of(dm_yaml)
    trained = []
    monkeypatch.setattr(fits, "run_fit", lambda fit, contest: trained.append(fit.row) or fits.Outcome(0.5, 0))
    assert main(["diagnose", str(dm_yaml), *HERE, *SMALL]) == 0
    assert "nothing was done again" in capsys.readouterr().out and not trained and record_of(dm_yaml) == first
    assert main(["diagnose", str(dm_yaml), *HERE, *SMALL, "diagnose.num_sets=10"]) == 0
    assert len(trained) == 2, "two sets are new"
    assert record_of(dm_yaml)["pairs"][:8] == first["pairs"]


def test_a_diagnosis_that_was_killed_goes_on_and_ends_alike(dm_yaml, monkeypatch):
    """In the losses of a stretch; then between two networks."""
    assert main(["diagnose", str(dm_yaml), *HERE, *SMALL, f"output={dm_yaml.parent / 'other'}"]) == 0
    (path,) = (dm_yaml.parent / "other/diagnoses").glob("*/diagnosis.json")
    wanted = json.loads(path.read_text())
    for module, name in ((diagnosing, "_losses_at"), (fits, "run_fit")):
        function, calls = getattr(module, name), []

        def dying(task, shared, function=function, calls=calls):
            calls.append(task)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return function(task, shared)

        monkeypatch.setattr(module, name, dying)
        assert main(["diagnose", str(dm_yaml), *HERE, *SMALL]) == 130
        calls_before = len(calls)
        monkeypatch.setattr(module, name, lambda t, s, f=function, c=calls: c.append(t) or f(t, s))
        assert main(["diagnose", str(dm_yaml), *HERE, *SMALL]) == 0
        assert len(calls) - calls_before == (2 if module is diagnosing else 7), "what was done is not done again"
        if module is diagnosing:
            (folder,) = (dm_yaml.parent / "runs/diagnoses").iterdir()
            for file in ("diagnosis.json", "scored.jsonl"):
                (folder / file).unlink()
    assert record_of(dm_yaml)["pairs"] == wanted["pairs"]


def test_a_blind_objective_is_said_to_be_blind(dm_yaml, capsys, monkeypatch):
    def constant(self, synthetic: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return 3 + 0 * synthetic.sum()

    monkeypatch.setattr(DistributionSteps, "distance", constant)
    assert main(["diagnose", str(dm_yaml), *HERE, *SMALL]) == 0
    assert "warning: the objective is blind: the loss is constant (30 to 30) over 8 sets" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_at_some_sets_ranks_last(dm_yaml, capsys, monkeypatch):
    """Real numbers never are so bad; that of the noisy images is made so."""
    asked = diagnosing._losses_at

    def without_the_last(draw, shared):
        return [[float("nan")] if number == 2 else own for number, own in enumerate(asked(draw, shared))]

    monkeypatch.setattr(diagnosing, "_losses_at", without_the_last)
    assert main(["diagnose", str(dm_yaml), *HERE, *SMALL]) == 0
    assert "not finite" in capsys.readouterr().out and record_of(dm_yaml)["pairs"][2]["loss"] is None


def test_a_method_without_a_set_is_refused_with_the_kinds_that_can_be_diagnosed(tmp_path, capsys):
    path = tmp_path / "gan.yaml"
    path.write_text(tiny_gan_text(tmp_path / "runs"))
    assert main(["diagnose", str(path), *HERE]) == 2
    err = capsys.readouterr().err
    assert "cannot be asked of a given set" in err and "distribution_matching" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("diagnose.num_set=3", "did you mean 'num_sets'"),
        ("diagnose.num_sets=2", "num_sets"),
        ("diagnose=3", "diagnose"),
    ],
)
def test_wrong_settings_are_one_error(dm_yaml, capsys, typed, problem):
    assert main(["diagnose", str(dm_yaml), *HERE, typed]) == 2
    assert problem in capsys.readouterr().err
    assert not (dm_yaml.parent / "runs").exists()


@pytest.fixture
def sweep(tmp_path):
    """A finished sweep of six trials, whose last losses fall as their scores rise; the first score tells nothing."""
    trials = []
    for number in range(6):
        folder = tmp_path / "trials" / f"run-{number}"
        folder.mkdir(parents=True)
        (folder / "resolved.yaml").write_text("method: {kind: distribution_matching}\n")
        accuracy = 0.5 + 0.05 * number
        lines = [{"step": step, "matching_loss": 9.0 - number if step > 30 else 7.0} for step in range(1, 61)]
        lines[29] |= {"validation_accuracy": 0.3}
        lines[59] |= {"validation_accuracy": accuracy}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        trials.append(
            TrialRecord(
                number=number,
                settings={"seed": number},
                run=folder.name,
                status="finished",
                outer_step=60,
                accuracy=accuracy,
                num_networks=2,
            )
        )
    failed = TrialRecord(number=6, settings={}, run="", status="failed")
    study = Study(1, (30, 60), (*trials, trials[0], failed), 5)
    write_json(tmp_path / "report.json", {"schema": 1, "studies": [study.as_json()]})
    return tmp_path


def test_a_sweep_is_diagnosed_from_the_pairs_that_it_has(sweep, capsys):
    assert main(["diagnose", str(sweep)]) == 0
    out = capsys.readouterr().out
    assert "1 image per class, outer step 60: the loss knows accuracy: rho = -1.00 (p 0.0028) over 6 trials" in out
    assert "outer step 30: warning: the objective is blind: the loss is constant (7 to 7) over 6 trials" in out
    record = json.loads((sweep / "diagnosis/diagnosis.json").read_text())
    assert [level["outer_step"] for level in record["levels"]] == [30, 60]
    assert [pair["loss"] for pair in record["levels"][1]["pairs"]] == [9.0, 8.0, 7.0, 6.0, 5.0, 4.0]


def test_a_folder_without_a_sweep_and_settings_of_one_are_refused(sweep, tmp_path, capsys):
    assert main(["diagnose", str(sweep), "seed=1"]) == 2
    assert main(["diagnose", str(sweep / "trials")]) == 3
    assert "is not the folder of a sweep" in capsys.readouterr().err
