"""Networks that an evaluation trains: each once, and each outcome in its place."""

from dataclasses import replace

import pytest
import torch

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.data import Images
from distributed_dd.evaluation import fits
from distributed_dd.evaluation.fits import CONFUSED, Contest, Fit, score
from distributed_dd.evaluation.scored import Scored
from distributed_dd.learning.loop import Recipe
from distributed_dd.learning.networks.mlp import MLP


@pytest.fixture
def contest():
    rng = torch.Generator().manual_seed(0)
    judge = Images(torch.randn(20, 1, 4, 4, generator=rng), torch.arange(20) % 2)
    recipe = Recipe(num_epochs=2, batch_size=8)
    return Contest(network=MLP(width=4), recipe=recipe, seed=0, num_classes=2, judge=judge)


def rows_of_two_sets():
    rng = torch.Generator().manual_seed(1)
    one, other = (torch.randn(6, 1, 4, 4, generator=rng) for _ in range(2))
    labels = torch.arange(6) % 2
    fit = Fit(images=one, labels=labels, learning_rate=0.1, member=0, row="last step")
    return [
        fit,
        replace(fit, row=CONFUSED, images=one.clone()),
        replace(fit, row="another set", images=other),
        replace(fit, row="another rate", learning_rate=0.2),
        replace(fit, row="another member", member=1),
        replace(fit, row="other labels", labels=1 - labels),
        replace(fit, row="for longer", num_epochs=3),
        replace(fit, row="of another kind", labels=labels.to(torch.int32).long(), augmented=False),
        replace(fit, row="soft", labels=torch.eye(2)[labels]),
    ]


def test_the_same_network_on_the_same_set_is_trained_once(contest, tmp_path, monkeypatch):
    rows, trained, run_fit = rows_of_two_sets(), [], fits.run_fit

    def watched(fit, contest):
        trained.append(fit.row)
        return run_fit(fit, contest)

    monkeypatch.setattr(fits, "run_fit", watched)
    scored = Scored(tmp_path / "scored.jsonl", "manifest")
    outcomes = score(rows, contest, InProcess(), what="networks", scored=scored)
    assert sorted(trained) == sorted(row.row for row in rows if row.row != "last step")
    for fit, outcome in zip(rows, outcomes, strict=True):
        alone = run_fit(fit, contest)
        assert outcome.accuracy == alone.accuracy and outcome.confusion == alone.confusion
        assert bool(outcome.confusion) == (fit.row == CONFUSED)
    trained.clear()
    again = score(rows, contest, InProcess(), what="networks", scored=Scored(scored.path, "manifest"))
    assert not trained and [o.accuracy for o in again] == [o.accuracy for o in outcomes]
