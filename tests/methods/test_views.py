"""How experts see the real images: against the experts asked directly."""

import json
from itertools import pairwise

import pytest
import torch

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.cli import main
from distributed_dd.composition import experiment_from
from distributed_dd.experiment_run import Run
from distributed_dd.learning.curriculum import el2n
from distributed_dd.methods.trajectory_matching.views import forgotten
from tests.end_to_end.test_run import HERE, run_folder

RULES = ("herding_features", "kmeans_features", "k_center_features", "el2n", "forgetting")
NETWORK = "network={kind: convnet, depth: 2, width: 4}"


def test_what_was_never_learned_counts_as_forgotten_most():
    right = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 1, 1], [0, 0, 1, 1]]).bool()
    assert forgotten(right).tolist() == [2, 4, 0, 0]


@pytest.fixture
def run(tiny_yaml):
    assert main(["experts", str(tiny_yaml), NETWORK, *HERE]) == 0
    return Run(experiment=experiment_from(tiny_yaml, [NETWORK]), cluster=InProcess())


def seen(run, name):
    return run.prelude.view(name, InProcess(), ConsoleProgress())


def test_experts_say_how_hard_an_image_is(run):
    jury, targets = run.prelude.jury, run.material.train.targets
    by_expert = [el2n(jury.logits(expert, 4), targets) for expert in range(2)]  # epoch 10 was not reached
    assert torch.allclose(seen(run, "el2n").squeeze(1), torch.stack(by_expert).mean(0))
    counts = torch.zeros(len(targets))
    for expert in range(2):
        right = [jury.logits(expert, epoch).argmax(1) == targets for epoch in range(1, 5)]
        for before, after in pairwise(right):
            counts += before & ~after
        counts[~torch.stack(right).any(0)] += 4
    assert seen(run, "forgetting").squeeze(1).tolist() == counts.tolist()


def test_features_are_what_goes_into_the_classifier(run):
    features, jury = seen(run, "features"), run.prelude.jury
    logits = jury.logits(0, -1)
    head = jury._layers[-1]
    with torch.no_grad():
        assert torch.allclose(head(features), logits, atol=1e-4)


def test_a_report_has_rows_of_images_chosen_through_experts(tiny_yaml, capsys):
    controls = f"evaluate.controls=[{','.join(RULES)}]"
    assert main(["run", str(tiny_yaml), controls, "evaluate.num_networks=1", *HERE]) == 0
    rows = json.loads((run_folder(tiny_yaml) / "report.json").read_text())["rows"]
    assert {*RULES, *(f"{rule}_soft_labels" for rule in RULES)} <= {row["name"] for row in rows}
    page = (run_folder(tiny_yaml) / "report.md").read_text()
    assert "easiest by EL2N of experts" in page and "herding, in an expert's features, same soft labels" in page


def test_methods_without_experts_refuse_such_rules_before_anything_is_made(tiny_yaml, tmp_path, capsys):
    file = tmp_path / "dm.yaml"
    file.write_text(
        f"images_per_class: 1\nnum_outer_steps: 1\noutput: {tmp_path / 'runs'}\ntracker: none\n"
        "data: digits\nmethod: {kind: distribution_matching, image_optimizer: {learning_rate: 1}}\n"
        "network: {kind: convnet, depth: 2, width: 4}\nevaluate: {controls: [el2n]}\n"
    )
    assert main(["run", str(file), *HERE]) == 2
    assert "'el2n' needs experts" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
