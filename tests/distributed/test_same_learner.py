"""A learner under DeepSpeed is that of one process: every update rule, ZeRO stage and number of ranks."""

from contextlib import contextmanager

import pytest
import torch

from distributed_dd.backends.deepspeed.learner import DeepSpeedLearner
from distributed_dd.backends.deepspeed.zero import Zero
from distributed_dd.backends.local.learner import LocalLearner
from distributed_dd.learning.clipping import Clipped, RunningNorm
from distributed_dd.learning.update_rules import LAMB, SGD, Adam, is_by_row
from distributed_dd.outer.checkpoint import Checkpoints
from tests.references import small_job

NUM_ROWS, ZEROED = small_job.NUM_ROWS, slice(3, 9)
NUM_PARAMETERS = 1001  # divides by no number of ranks; nor do the 15 label logits of a class
# Measured over all cases: no bit differs. But ranks sum norms in another order, which may round otherwise.
ROUNDING = 3e-6
ZEROS = {
    "zero0": Zero(0),
    "zero1": Zero(1),
    "zero2": Zero(2),
    "zero3": Zero(3),
    "own_rows": Zero(0, True),
    "zero1_offload": Zero(1, offload="momenta"),
    "zero2_offload": Zero(2, offload="momenta"),
    "zero3_offload": Zero(3, offload="momenta"),
    "zero3_offload_all": Zero(3, offload="all"),
}
RULES = {
    "sgd": {"images": SGD(1.0, 0.5), "learning_rate": SGD(1e-3, 0.5), "labels": SGD(2.0, 0.9)},
    "hard_labels": {"images": SGD(1.0, 0.5)},
    "adam": {"images": Adam(0.1), "labels": Adam(0.2, 0.5, 0.9)},
    "lamb": {"images": LAMB(0.1), "labels": LAMB(0.2, 0.5, 0.9), "learning_rate": LAMB(0.1)},
    "mixed": {"learning_rate": LAMB(0.1), "labels": SGD(2.0, 0.9), "images": Adam(0.1)},
    "clipped": {"images": Clipped(Adam(0.1), RunningNorm(0.5, 0.9)), "labels": Clipped(SGD(0.1), RunningNorm(0.9))},
    "labels_first": {"labels": LAMB(0.1), "images": SGD(1.0, 0.0)},
    "network": {"generator.theta": Adam(0.01, 0.5, 0.9)},
    "network_lamb": {"generator.theta": LAMB(0.01)},
}
EXACT = ["sgd", "hard_labels"]
"""Of these every bit is the same; the others may round."""


def starting(case):
    """A checkpoint: hard labels come without a learning rate, networks after seven updates."""
    if case.startswith("network"):
        rng = torch.Generator().manual_seed(1)
        found = {name: torch.randn(NUM_PARAMETERS, generator=rng) for name in ("theta", "mean")}
        found["square"] = torch.rand(NUM_PARAMETERS, generator=rng)
        return {f"generator.{name}": t for name, t in found.items()} | {"generator.updates": torch.tensor(7.0)}
    found = small_job.starting()
    if case == "hard_labels":
        del found["learning_rate"]
    return found


def saved_start(folder, case):
    checkpoints = Checkpoints(folder, "config")
    return [checkpoints.write_shard(0, 0, 1, 0, starting(case))]


def parts_of_gradient(case, name, step, num_ranks):
    """What ranks hand in of a gradient far above 1, in multiples of 2^-10: sums are exact in any order."""

    def drawn(number):
        rng = torch.Generator().manual_seed(1000 * step + 10 * len(name) + number)
        return (10240 * torch.randn(starting(case)[name].shape, generator=rng)).round() / 1024

    whole = drawn(0)
    if step == 1 and is_by_row(name):
        whole[ZEROED] = 0
    parts = [drawn(number) for number in range(1, num_ranks)]
    return [*parts, whole - sum(parts)]


@contextmanager
def uninitialised_memory_is_nan():
    """What is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def stepped(learner, case, steps, rank=0, num_ranks=1, rate_factor=1.0):
    """Read and step; squared norms, this rank's parts."""
    norms = []
    for step in steps:
        held = learner.read()
        if not learner.num_rows:  # a network is also read where it is not updated
            held = learner.read()
        gradients = {}
        for name in RULES[case]:
            now = held.tensors[name]
            parts = parts_of_gradient(case, name, step, num_ranks)
            gradients[name] = parts[rank]
            if is_by_row(name) and len(now) < NUM_ROWS:  # it hands in its rows, and nobody else does
                gradients[name] = sum(parts)[held.first : held.first + len(now)].clone()
            assert gradients[name].shape == now.shape
        norms.append(learner.step(gradients, rate_factor))
    return norms


def alone(folder, shards, case, steps):
    """The same in one process."""
    learner = LocalLearner(Checkpoints(folder, "config").saved(shards), RULES[case])
    norms = [norm.item() for norm in stepped(learner, case, steps)]
    return learner, norms


def everything(learner):
    return learner.kept() | learner.slots()


def in_rank(rank, case, zero, folder, shards, steps):
    """On every rank: the shard that it writes after some steps, the squared norms of all, and its sums."""
    torch.set_num_threads(1)
    ranks, checkpoints = small_job.ranks_of(rank, 1), Checkpoints(folder, "config")
    layout = ranks.layout
    with uninitialised_memory_is_nan():
        learner = DeepSpeedLearner(zero, ranks, checkpoints.saved(shards), RULES[case])
        first = everything(learner)
        as_it_was = {name: value.clone() for name, value in first.items()}
        before = ranks.calls["sum"]
        norms = stepped(learner, case, steps, layout.rank, layout.num_ranks)
        num_sums = ranks.calls["sum"] - before
        kept = everything(learner)
    assert all(torch.equal(first[name], value) for name, value in as_it_was.items()), "no copies"
    norms = [ranks.sum(norm.clone()).item() for norm in norms]
    learner.close()
    row = layout.kept(learner.num_rows)[0]
    tensors = {name: value.cpu() for name, value in kept.items()}
    return checkpoints.write_shard(9, layout.rank, layout.num_ranks, row, tensors), norms, num_sums


def after(folder, shards):
    """Everything that shards keep, whole, by name; what is not kept row by row must be in all of them."""
    saved, found = Checkpoints(folder, "config").saved(shards), {}
    for name in saved.names():
        found[name] = saved.rows(name, 0, saved.num_rows) if is_by_row(name) else saved.value(name)
        for shard in shards:
            other = Checkpoints(folder, "config").saved([shard])
            assert is_by_row(name) or torch.equal(other.value(name), found[name])
    return found


def assert_same(found, expected, exact):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype, name
        if exact or not value.is_floating_point():
            assert torch.equal(found[name], value), name
        else:
            largest = (found[name].double() - value.double()).abs().max()
            assert largest <= ROUNDING * value.double().abs().max(), name


CASES = [
    *[("sgd", zero, 2) for zero in ZEROS],
    *[("sgd", zero, 4) for zero in ("zero0", "zero1", "zero3", "own_rows")],
    *[("sgd", zero, 1) for zero in ("zero0", "zero3", "own_rows")],
    *[("hard_labels", zero, n) for zero, n in (("zero0", 1), ("zero2", 4), ("zero3", 2), ("own_rows", 4))],
    *[("adam", zero, 2) for zero in ("zero0", "zero1", "zero2", "zero3", "own_rows", "zero3_offload_all")],
    *[("adam", zero, 4) for zero in ("zero2_offload", "zero3")],
    *[("lamb", zero, 2) for zero in ZEROS],
    *[("lamb", zero, 4) for zero in ("zero0", "zero2", "zero3", "own_rows")],
    ("lamb", "own_rows", 1),
    *[("mixed", zero, 2) for zero in ("zero0", "zero2", "zero3", "own_rows", "zero3_offload")],
    *[("clipped", zero, 2) for zero in ZEROS],
    ("clipped", "zero3", 4),
    *[("labels_first", zero, 4) for zero in ("zero1", "zero3", "own_rows")],
    *[("network", zero, 2) for zero in ("zero0", "zero1", "zero2", "zero3", "zero3_offload_all")],
    *[("network", zero, n) for zero, n in (("zero1_offload", 4), ("zero3", 4), ("zero2", 1))],
    *[("network_lamb", zero, 4) for zero in ("zero0", "zero2", "zero3")],
]


@pytest.mark.parametrize(("case", "zero", "num_ranks"), CASES)
def test_steps_are_those_of_one_process(gangs, tmp_path, case, zero, num_ranks):
    """Four updates by gradients far above 1, one of them zero for some classes.

    Catches clipped or averaged gradients, parameters that a backward leaves out (they would step with an old
    gradient), rules, slots and counts that went to another tensor, LAMB's or a clip's norm of a block, of a rank
    or of what is on all ranks, or with what stage 3 fills parameters up with, and rows saved at another place.
    """
    shards = saved_start(tmp_path, case)
    learner, norms = alone(tmp_path, shards, case, range(4))
    answers = gangs(num_ranks).call(in_rank, case, ZEROS[zero], tmp_path, shards, range(4))
    assert_same(after(tmp_path, [answer[0] for answer in answers]), everything(learner), case in EXACT)
    for _, told, num_sums in answers:
        assert told == pytest.approx(norms, rel=1e-12), "the squared norm of the first gradient"
        assert num_sums == 4 * sums_of_a_step(case, ZEROS[zero])


def sums_of_a_step(case, zero):
    """One for the norms of each tensor that is clipped or LAMB's, in parts; one for a flat gradient beside own rows."""
    whole = [name for name in RULES[case] if zero.own_rows and not is_by_row(name)]
    cut = [] if zero.stage == 0 and not zero.own_rows else set(RULES[case]) - set(whole)
    return len(whole) + sum(isinstance(RULES[case][name], LAMB | Clipped) for name in cut)


@pytest.mark.parametrize(
    ("case", "zero", "before", "then"),
    [
        ("sgd", "zero1", 2, 4),
        ("sgd", "own_rows", 4, 2),
        ("adam", "zero2", 1, 2),
        ("lamb", "zero3", 4, 2),
        ("lamb", "own_rows", 2, 1),
        ("mixed", "zero3", 2, 4),
        ("clipped", "zero3", 2, 4),
        ("clipped", "own_rows", 2, None),
        ("clipped", "zero1", None, 2),
        ("mixed", "zero0", 2, None),
        ("lamb", "zero2", None, 2),
        ("network", "zero3", 2, 4),
        ("network", "zero1", None, 2),
        ("network_lamb", "zero3", 4, None),
    ],
)
def test_other_ranks_go_on_from_what_is_saved(gangs, tmp_path, case, zero, before, then):
    """None is one process. Catches slots or counts that are not saved or loaded, or other rows of them."""
    start = saved_start(tmp_path, case)
    expected = everything(alone(tmp_path, start, case, range(4))[0])

    def onwards(shards, steps, num_ranks, folder):
        if num_ranks is None:
            learner, _ = alone(tmp_path, shards, case, steps)
            return [Checkpoints(folder, "config").write_shard(9, 0, 1, 0, everything(learner))]
        answers = gangs(num_ranks).call(in_rank, case, ZEROS[zero], folder, shards, steps)
        return [answer[0] for answer in answers]

    halfway = onwards(start, range(2), before, tmp_path)
    found = after(tmp_path, onwards(halfway, range(2, 4), then, tmp_path))
    assert_same(found, expected, case in EXACT)


def changed(learner, part_of):
    """What a learner says of its rate, lifted to 0.25 between steps, the second of them a half; what it keeps."""
    stepped(learner, "sgd", [0], *part_of)
    told = [learner.lift("learning_rate", -1e9), learner.lift("learning_rate", 0.25)]
    told += [learner.value("learning_rate"), learner.lift("learning_rate", 0.25)]
    told += [learner.kept()["learning_rate"].item()]
    stepped(learner, "sgd", [2], *part_of, rate_factor=0.5)
    stepped(learner, "sgd", [3], *part_of)
    return [*told, learner.value("learning_rate")], everything(learner)


def changed_in_rank(rank, zero, folder, shards):
    ranks, checkpoints = small_job.ranks_of(rank, 1), Checkpoints(folder, "config")
    layout = ranks.layout
    learner = DeepSpeedLearner(zero, ranks, checkpoints.saved(shards), RULES["sgd"])
    told, kept = changed(learner, (layout.rank, layout.num_ranks))
    learner.close()
    row = layout.kept(NUM_ROWS)[0]
    return checkpoints.write_shard(9, layout.rank, layout.num_ranks, row, kept), told


@pytest.mark.parametrize("zero", ["zero0", "zero1", "zero2_offload", "zero3", "own_rows", "zero3_offload_all"])
def test_a_number_is_lifted_on_all_ranks_and_for_good(gangs, tmp_path, zero):
    """Catches a floor that reaches the parameter and not its master, or the other way round.

    And a factor of learning rates that does not reach the optimiser inside DeepSpeed's.
    """
    shards = [Checkpoints(tmp_path, "config").write_shard(0, 0, 1, 0, low_rate())]
    learner = LocalLearner(Checkpoints(tmp_path, "config").saved(shards), RULES["sgd"])
    told, kept = changed(learner, (0, 1))
    assert told[:5] == [False, True, 0.25, False, 0.25]
    answers = gangs(2).call(changed_in_rank, ZEROS[zero], tmp_path, shards)
    assert all(said == told for _, said in answers)
    assert_same(after(tmp_path, [shard for shard, _ in answers]), kept, exact=True)


def low_rate():
    return starting("sgd") | {"learning_rate": torch.tensor(-100.0)}


def replaced_in_rank(rank, zero, folder, shards):
    """What `read` and `kept` give of labels that were replaced, and what is said of learned images."""
    ranks, checkpoints = small_job.ranks_of(rank, 1), Checkpoints(folder, "config")
    learner = DeepSpeedLearner(zero, ranks, checkpoints.saved(shards), RULES["hard_labels"])
    held = learner.read()
    first, last = held.first, held.first + len(held.labels)
    before = learner.kept()
    learner.replace("labels", 2 * starting("hard_labels")["labels"][first:last])
    with pytest.raises(TypeError, match="learned"):
        learner.replace("images", held.images)
    a, b = ranks.layout.kept(NUM_ROWS)
    assert torch.equal(before["labels"], starting("hard_labels")["labels"][a:b]), "no copies"
    found = (first, last), learner.read(), learner.kept(), (a, b)
    learner.close()
    return found


@pytest.mark.parametrize("zero", ["zero0", "zero2", "zero3", "own_rows"])
def test_rows_that_are_not_learned_are_replaced(gangs, tmp_path, zero):
    """Catches rows counted from the wrong place where a rank reads all and keeps some."""
    wanted = 2 * starting("hard_labels")["labels"]
    answers = gangs(2).call(replaced_in_rank, ZEROS[zero], tmp_path, saved_start(tmp_path, "hard_labels"))
    for (first, last), held, kept, (a, b) in answers:
        assert held.tensors.keys() == {"images", "labels"} and kept.keys() == {"images", "labels", "classes"}
        assert torch.equal(held.labels, wanted[first:last]) and torch.equal(kept["labels"], wanted[a:b])
        assert (last - first == NUM_ROWS) == (zero in ("zero0", "zero2"))


def test_the_learner_of_one_process_is_torchs_sgd(tmp_path):
    """What all others are compared with: catches slots that start otherwise than as zeros, and views."""
    saved = Checkpoints(tmp_path, "config").saved(saved_start(tmp_path, "sgd"))
    learner = LocalLearner(saved, RULES["sgd"])
    before = everything(learner)
    assert learner.num_rows == NUM_ROWS
    assert all(not before[f"momentum.{name}"].any() for name in RULES["sgd"])
    parameters = {name: torch.nn.Parameter(starting("sgd")[name]) for name in RULES["sgd"]}
    groups = [
        {"params": [parameters[n]], "lr": r.learning_rate, "momentum": r.momentum} for n, r in RULES["sgd"].items()
    ]
    torchs = torch.optim.SGD(groups, lr=1.0)
    for step in range(3):
        for name, parameter in parameters.items():
            (parameter.grad,) = parts_of_gradient("sgd", name, step, 1)
        torchs.step()
    stepped(learner, "sgd", range(3))
    for name, parameter in parameters.items():
        assert torch.equal(learner.kept()[name], parameter)
        assert torch.equal(learner.slots()[f"momentum.{name}"], torchs.state[parameter]["momentum_buffer"])
        assert torch.equal(before[name], starting("sgd")[name])


def test_what_a_checkpoint_needs_of_a_network(tmp_path):
    """The names and shapes are a contract with files on disk; without rows nothing of a set is held."""
    learner, _ = alone(tmp_path, saved_start(tmp_path, "network"), "network", range(2))
    found = everything(learner)
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in starting("network").items()
    }
    assert found["generator.updates"] == 9.0 and learner.num_rows == 0
    assert learner.read().tensors.keys() == {"generator.theta"}


@pytest.mark.parametrize("names", [["images"], ["images", "labels", "learning_rate", "classes"]])
def test_gradients_of_other_things_than_are_learned_are_refused(tmp_path, names):
    """Catches a worker that forgets one: its tensor would stand still without a word."""
    learner = LocalLearner(Checkpoints(tmp_path, "config").saved(saved_start(tmp_path, "sgd")), RULES["sgd"])
    with pytest.raises(ValueError, match="learned are images, labels, learning_rate"):
        learner.step({name: starting("sgd")[name] for name in names})
