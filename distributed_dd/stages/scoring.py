"""Score sets by training fresh networks on them, beside honest controls (`methods.md` 1.9, 5.8)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from torch import Tensor

from distributed_dd.data import Images
from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.networks import Network, initialised
from distributed_dd.distillation.student import Student, unflatten
from distributed_dd.family import choice, require, setting
from distributed_dd.stages.material import device
from distributed_dd.stages.ports import Cluster, Progress
from distributed_dd.training.loop import Recipe, accuracy, train
from distributed_dd.training.optimizers import OPTIMIZERS, SGD, Optimizer
from distributed_dd.trajectories.store import TrajectoryStore


@dataclass(frozen=True)
class Evaluation(Recipe):
    """How a set is scored: fresh networks, trained by one frozen recipe."""

    num_epochs: int = setting("passes over the set", 1001)
    batch_size: int = setting("images per step", 128)
    drop: float = setting("learning rate factor after epoch num_epochs // 2 + 1", 0.1)
    optimizer: Optimizer = choice(
        OPTIMIZERS, "update rule; its rate is used where none was distilled", SGD(0.01, 0.9, 5e-4)
    )
    num_networks: int = setting("fresh networks per row of the report", 5)
    num_validation_networks: int = setting("fresh networks for every choice on validation", 2)
    every: int = setting("outer steps between scores on validation", 500)
    num_epochs_full_data: int = setting("passes over all real images, for the full-data row", 100)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_networks", "num_validation_networks", "every", "num_epochs_full_data"):
            require(getattr(self, name) >= 1, name, f"got {getattr(self, name)}", "1 or more")

    def recipe(self) -> Recipe:
        """The training part alone."""
        return Recipe(self.num_epochs, self.batch_size, self.drop, self.optimizer, self.augment)


@dataclass(frozen=True)
class Contest:
    """What all trials of one scoring share: the network, the recipe, the images that judge."""

    network: Network
    recipe: Recipe
    seed: int
    num_classes: int
    judge: Images


@dataclass(frozen=True)
class Trial:
    """One fresh network to train on one set."""

    images: Tensor
    labels: Tensor
    learning_rate: float | None
    member: int
    num_epochs: int | None = None


def run_trial(trial: Trial, contest: Contest) -> float:
    """Train network number ``trial.member`` on the set; returns its accuracy on the judge in [0, 1]."""
    where = device()
    rng = generator(contest.seed, "evaluation", trial.member, "start")
    images = trial.images.to(where)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    network = initialised(contest.network, shape, contest.num_classes, rng).to(where)
    recipe = contest.recipe
    if trial.num_epochs is not None:
        recipe = replace(recipe, num_epochs=trial.num_epochs)
    key = (contest.seed, "evaluation", trial.member)
    for _ in train(network, images, trial.labels.to(where), recipe, key, trial.learning_rate):
        pass
    return accuracy(network, contest.judge.images.to(where), contest.judge.targets.to(where))


def score(
    trials: Sequence[Trial],
    contest: Contest,
    cluster: Cluster,
    progress: Progress | None = None,
    what: str = "",
) -> list[float]:
    """Accuracies of all trials, in their order."""
    results = [0.0] * len(trials)
    if progress is None:
        for index, value in cluster.map(run_trial, trials, contest):
            results[index] = value
        return results
    with progress.bar(what, len(trials)) as bar:
        for index, value in cluster.map(run_trial, trials, contest):
            results[index] = value
            bar.advance()
    return results


@dataclass(frozen=True)
class Candidate:
    """A row of the report before it is scored.

    ``sets`` holds one (images, labels) per network, or a single one for all. Learning rates beyond
    the first are alternatives; validation decides.
    """

    name: str
    label_kind: str
    sets: tuple[tuple[Tensor, Tensor], ...]
    learning_rates: tuple[float, ...]
    num_epochs: int | None = None

    def trial(self, member: int, rate: float) -> Trial:
        """Network number ``member`` of this row."""
        images, labels = self.sets[member % len(self.sets)]
        return Trial(images, labels, rate, member, self.num_epochs)


def choose_rates(
    candidates: Sequence[Candidate], num_networks: int, contest: Contest, cluster: Cluster, progress: Progress
) -> list[float]:
    """For each row the learning rate that does best on validation; rows with one rate cost nothing."""
    trials, owners = [], []
    for row, candidate in enumerate(candidates):
        if len(candidate.learning_rates) > 1:
            for rate in candidate.learning_rates:
                trials += [candidate.trial(1000 + member, rate) for member in range(num_networks)]
                owners += [(row, rate)] * num_networks
    scores: dict[tuple[int, float], float] = {}
    if trials:
        results = score(trials, contest, cluster, progress, "choosing rates (validation)")
        for owner, value in zip(owners, results, strict=True):
            scores[owner] = scores.get(owner, 0.0) + value
    return [
        max(c.learning_rates, key=lambda rate, row=row: scores.get((row, rate), 0.0))  # type: ignore[misc]
        for row, c in enumerate(candidates)
    ]


def expert_accuracies(
    store: TrajectoryStore, num_experts: int, network: Network, num_classes: int, judge: Images
) -> list[float]:
    """Accuracy of every expert's last checkpoint."""
    images, targets = judge.images.to(device()), judge.targets.to(device())
    shape = (images.shape[1], images.shape[2], images.shape[3])
    layers = initialised(network, shape, num_classes, generator(0, "layout")).to(device())
    Student(layers)
    values = []
    for expert in range(num_experts):
        unflatten(store.open(expert).checkpoint(-1), layers)
        values.append(accuracy(layers, images, targets))
    return values


def row(name: str, network: str, label_kind: str, accuracies: Sequence[float]) -> dict:
    """One row of ``report.json``: mean and sample standard deviation over networks, in [0, 1]."""
    spread = stdev(accuracies) if len(accuracies) > 1 else 0.0
    return {
        "name": name, "network": network, "labels": label_kind, "accuracy_mean": mean(accuracies),
        "accuracy_std": spread, "num_networks": len(accuracies),
    }  # fmt: skip
