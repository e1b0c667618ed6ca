"""Every method of sets learns in every form, and none of them knows: the contract between the two."""

import pytest
import torch

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.experiment import experiment_of
from distributed_dd.experiment_run import Run
from distributed_dd.learning.set_forms import SET_FORMS
from distributed_dd.methods import METHODS
from distributed_dd.outer.checkpoint import Checkpoints
from tests.contracts import small_worlds

SMALL = {
    "formation": {"factor": 2},
    "frequency": {"share": 0.3},
    "quantised": {"bits": 4, "per_image": 3},
}
KINDS = [kind for kind, cls in METHODS.members.items() if cls.learns_a_set]


def test_every_form_is_tried():
    assert {"pixels", *SMALL} == set(SET_FORMS.members)


@pytest.mark.parametrize("form", SMALL)
@pytest.mark.parametrize("kind", KINDS)
def test_a_method_learns_what_is_stored_and_goes_on_from_it(tmp_path, kind, form):
    """Catches a method that is handed stored rows, gradients that reach no row, and what a cut run chooses anew."""
    values = small_worlds.values_of_point(small_worlds.example(kind), tmp_path)
    values |= {"images_per_class": 1, "set": {"form": {"kind": form, **SMALL[form]}}}
    run = Run(experiment=experiment_of(values), cluster=InProcess())
    run.prepare()
    pictures, numbers = run.world.form.pictures(small_worlds.SHAPE), run.world.form.numbers(small_worlds.SHAPE)
    start = run.product.starting()
    assert start["images"].shape[0] == 3 and start["images"][0].numel() == numbers
    assert run.world.images_per_class == pictures and run.world.stored_per_class == 1
    checkpoints = small_worlds.begun(tmp_path / "steps", start)
    workers = small_worlds.working(run.method.job(run.world, checkpoints))
    metrics = list(workers.outer_steps(0, 1))
    (cut,) = workers.save(1)
    metrics += workers.outer_steps(1, 3)
    (last,) = workers.save(3)
    assert metrics[0]["image_gradient_norm"] > 0
    saved = checkpoints.saved([last])
    moved = (saved.rows("images", 0, 3) - start["images"]).abs().flatten(1).amax(1)
    assert (moved > 0).all()
    result = run.product.read(saved)
    assert result["images"].shape == (3 * pictures, *small_worlds.SHAPE)
    assert result["classes"].tolist() == [number for number in range(3) for _ in range(pictures)]
    assert result["labels"].shape == (3 * pictures, 3) and torch.isfinite(result["images"]).all()
    again = Checkpoints(tmp_path / "steps", "small")
    small_worlds.commit(again, 1, cut)
    workers = small_worlds.working(run.method.job(run.world, again))
    assert list(workers.outer_steps(1, 3)) == metrics[1:]
    assert workers.save(3)[0].sha256 == last.sha256
