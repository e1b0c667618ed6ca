"""What every member of every family owes: a new one is held to it by being in the table."""

import dataclasses
from dataclasses import MISSING, fields
from types import SimpleNamespace

import pytest
import torch

from distributed_dd.data import DATA_SETS, PREPROCESSINGS, Images
from distributed_dd.family import build_member, plain
from distributed_dd.learning.augment import AUGMENTATIONS, OPERATIONS, Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.curriculum import CURRICULA
from distributed_dd.learning.flat import Student, flatten
from distributed_dd.learning.networks import NETWORKS, initialised
from distributed_dd.learning.optimizers import OPTIMIZERS
from distributed_dd.methods.trajectory_matching.labels import LABELS
from distributed_dd.methods.trajectory_matching.segments import SEGMENTS, Expanding, Window
from distributed_dd.methods.trajectory_matching.starts import STARTS
from distributed_dd.outer.starting import PLAIN_STARTS
from distributed_dd.trajectories.forms import FORMS
from distributed_dd.trajectories.store import TrajectoryStore
from tests.references.data_layouts import source_of
from tests.references.families import families

MEMBERS = [(family, kind) for family in families() for kind in family.members]


def named(members):
    return pytest.mark.parametrize(
        ("family", "kind"), members, ids=[f"{family.name}-{kind}" for family, kind in members]
    )


def of(family):
    return pytest.mark.parametrize("kind", list(family.members))


@named(MEMBERS)
def test_a_member_explains_itself_and_cannot_be_changed(family, kind):
    cls = family.members[kind]
    assert (cls.__doc__ or "").strip() and cls.__dataclass_params__.frozen
    assert not cls.__doc__.startswith(f"{cls.__name__}("), "a generated docstring explains nothing"
    assert all(f.metadata.get("meaning") for f in fields(cls))


@named([(f, k) for f, k in MEMBERS if all(x.default is not MISSING for x in fields(f.members[k]))])
def test_a_member_with_defaults_comes_back_from_its_configuration(family, kind):
    member = family.members[kind]()
    assert build_member(family, {"kind": kind, **plain(member)}) == member
    assert family.kind_of(member) == kind


@pytest.mark.parametrize("kind", [kind for kind in NETWORKS.members if kind != "torchvision"])
def test_a_network_can_be_a_student(kind):
    """Pure, twice differentiable in its parameters, and batch rows do not see each other."""
    small = {"resnet10": {"width": 4}, "resnet18": {"width": 4}}.get(kind, {})
    layers = initialised(NETWORKS.members[kind](**small), (3, 32, 32), 5, generator(0, kind))
    student, theta = Student(layers.double()), flatten(layers).double().requires_grad_()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    logits = student.logits(theta, images)
    assert logits.shape == (4, 5) and torch.equal(logits, student.logits(theta, images))
    (gradient,) = torch.autograd.grad(logits[0].sum(), images, retain_graph=True)
    assert gradient[0].abs().sum() > 0 and gradient[1:].abs().sum() == 0
    (first,) = torch.autograd.grad(logits.square().sum(), theta, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), theta)
    assert second.isfinite().all() and second.abs().sum() > 0


@of(AUGMENTATIONS)
@pytest.mark.parametrize("operation", [*OPERATIONS])
def test_an_augmentation_replays_and_keeps_the_shape(kind, operation):
    cls = AUGMENTATIONS.members[kind]
    augmentation = cls((operation,)) if cls is Siamese else cls()
    drawn = augmentation.draw(generator(0, "draw"), 6)
    images = torch.randn(6, 3, 8, 8, requires_grad=True)
    out = drawn(images)
    assert out.shape == images.shape and torch.equal(out, drawn(images))
    assert torch.autograd.grad(out.sum(), images)[0].isfinite().all()


@of(OPTIMIZERS)
def test_an_optimizer_descends(kind):
    theta, optimizer = torch.tensor([3.0, -2.0]), OPTIMIZERS.members[kind](learning_rate=0.05)
    velocity, calls = optimizer.start(theta), []
    for _ in range(100):
        theta, velocity = optimizer.update(theta, velocity, lambda at: calls.append(1) or 2 * at)
    assert theta.abs().max() < 0.1 and len(calls) == 100 * optimizer.passes


@of(SEGMENTS)
def test_a_window_stays_inside_its_bounds(kind):
    made = {
        "window": Window(5, 1),
        "expanding": Expanding(max_start_epoch=5, initial_max_start_epoch=2, expansion_steps=10, min_start_epoch=1),
    }[kind]
    drawn = {made.draw(step, generator(0, step)) for step in range(200)}
    assert min(drawn) == 1 and max(drawn) == made.max_start_epoch - 1
    assert drawn == set(made.starts())
    finer = dataclasses.replace(made, step=0.25)
    assert {finer.draw(step, generator(0, step)) for step in range(500)} == set(finer.starts())
    assert finer.starts()[:2] == [1, 1.25] and finer.starts()[-1] == 4.75


@of(FORMS)
def test_a_form_reads_back_what_it_covers(kind, tmp_path):
    form, needed = FORMS.members[kind](), (0.0, 2.0, 4.0)
    recorded = form.recorded(4, needed)
    rows = torch.randn(len(recorded), 5, generator=generator(0, "rows")).cumsum(0)
    store = TrajectoryStore.below(tmp_path, {"form": kind})
    store.write(0, form.tensors(recorded, rows, [2, 3]), recorded, {})
    trajectory = store.open(0)
    assert form.covers(recorded, needed) and all(trajectory.has(epoch) for epoch in needed)
    assert torch.equal(trajectory.checkpoint(0), rows[0]) and torch.equal(trajectory.checkpoint(-1), rows[-1])
    assert trajectory.num_parameters == 5 and trajectory.num_epochs == 4
    stored = form.tensors(recorded, rows, [2, 3])
    parameters = stored.get("trajectory", stored.get("waypoints"))
    assert form.bytes_per_expert(4, needed, 5) == parameters.numel() * parameters.element_size()


@of(CURRICULA)
def test_a_curriculum_chooses_distinct_images_in_every_epoch(kind):
    curriculum, ranked = CURRICULA.members[kind](), torch.randperm(50, generator=generator(0, "rank"))
    for epoch in (0, 1, 20, 45, 80):
        chosen = curriculum.chosen(epoch, ranked).tolist()
        assert 0 < len(chosen) == len(set(chosen)) and set(chosen) <= set(range(50))


@of(STARTS)
def test_a_start_is_grouped_by_class_without_repeats(kind):
    targets = torch.tensor([1, 0] * 10)
    chosen = STARTS.members[kind]().choose(
        torch.zeros(20, 1), targets, 3, lambda expert: targets, 2, generator(0, "start")
    )
    assert targets[chosen].tolist() == [0] * 3 + [1] * 3 and len(set(chosen.tolist())) == 6


@of(PLAIN_STARTS)
def test_a_plain_start_is_grouped_by_class_and_the_same_every_time(kind):
    images, targets = torch.randn(20, 1, 4, 4, generator=generator(0, "real")), torch.tensor([1, 0] * 10)
    world = SimpleNamespace(
        seed=0,
        images_per_class=3,
        num_classes=2,
        num_images=6,
        image_shape=(1, 4, 4),
        real=SimpleNamespace(train=Images(images, targets)),
    )
    start = PLAIN_STARTS.members[kind]()
    (chosen, classes), (again, _) = start.images(world), start.images(world)
    assert classes.tolist() == [0] * 3 + [1] * 3 and torch.equal(chosen, again)
    assert chosen.shape == (6, 1, 4, 4) and len(chosen.unique(dim=0)) == 6


@of(LABELS)
def test_labels_prefer_the_class_when_experts_do(kind):
    targets = torch.tensor([0, 2, 1])
    logits = torch.nn.functional.one_hot(targets, 3).float() * 4
    started = LABELS.members[kind]().start(targets, 3, [logits, logits + 1])
    assert started.shape == (3, 3) and started.argmax(1).tolist() == targets.tolist()


@of(PREPROCESSINGS)
def test_preprocessing_inverts(kind):
    images = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    fitted = PREPROCESSINGS.members[kind]().fit(images)
    seen = fitted.apply(images)
    back = fitted.invert(seen)
    assert torch.allclose(fitted.apply(back), seen, atol=1e-4)
    # What brings each image to one norm cannot know its own again.
    assert fitted.scale is not None or torch.allclose(back, images, atol=1e-4)


@of(DATA_SETS)
def test_a_data_set_names_itself_and_loads_the_same_every_time(warm_readers, kind, tmp_path, monkeypatch):
    source = source_of(kind, tmp_path, monkeypatch)
    first, again = source.load(), source.load()
    assert first.name == source.name and first.sha256 == again.sha256
    assert torch.equal(first.validation.images, again.validation.images)
    assert len(first.class_names) == len(set(first.class_names))
