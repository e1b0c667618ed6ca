"""A student that would go further than its expert is named before anything is trained, and no published setting is."""

from dataclasses import replace

import pytest

from distributed_dd.composition import experiment_from
from distributed_dd.learning.optimizers import GSAM, SGD, Adam
from distributed_dd.methods.trajectory_matching.expert import Experts
from distributed_dd.methods.trajectory_matching.method import TrajectoryMatching
from distributed_dd.methods.trajectory_matching.reach import notes_of, reach
from tests.conftest import ROOT

PRESETS = sorted(
    path for path in (ROOT / "configs").glob("*/*.yaml") if "kind: trajectory_matching" in path.read_text()
)


def method(**settings):
    experts = Experts(num_epochs=20, batch_size=100, optimizer=SGD(learning_rate=0.1))
    return TrajectoryMatching(experts=experts, **settings)


def test_the_share_is_of_both_paths():
    asked = method(student_steps=40, student_learning_rate=0.01, expert_epochs=2)
    assert reach(asked, 950) == pytest.approx(40 * 0.01 / (2 * 10 * 0.1))
    adam = replace(asked, experts=replace(asked.experts, optimizer=Adam()))
    assert reach(adam, 950) is None and notes_of(adam, 950) == []


def test_the_rate_that_is_proposed_is_no_longer_named():
    asked = method(student_steps=80, student_learning_rate=0.5, expert_epochs=1)
    (line,) = notes_of(asked, 1000)
    rate = float(line.split("method.student_learning_rate=")[1].split(",")[0])
    better = replace(asked, student_learning_rate=rate)
    assert notes_of(better, 1000) == [] and 0.1 < reach(better, 1000) < 0.3


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_shipped_setting_is_named(path):
    asked = experiment_from(path, []).method
    num_train = {"digits": 1150}.get(path.parent.name, 45_000)
    assert isinstance(asked.experts.optimizer, SGD | GSAM)
    assert 0.005 < reach(asked, num_train) < 0.4 and notes_of(asked, num_train) == []


def test_a_kind_alone_is_a_method():
    assert TrajectoryMatching().image_optimizer.learning_rate > 0
    assert experiment_from(ROOT / "configs/digits/datm_ipc1.yaml", []).method.image_optimizer.momentum == 0.5
