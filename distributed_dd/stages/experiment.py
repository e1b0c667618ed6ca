"""The whole configuration of a run, as one frozen object."""

from dataclasses import dataclass
from typing import Literal

from distributed_dd.data import DATA_SETS, PREPROCESSINGS, DataSource, Preprocessing
from distributed_dd.data.whitening import ZCA
from distributed_dd.distillation.methods import METHODS, Generative, Method, TrajectoryMatching
from distributed_dd.distillation.networks import NETWORKS, Network
from distributed_dd.distillation.networks.convnet import ConvNet
from distributed_dd.family import choice, require, setting
from distributed_dd.stages.expert import Experts
from distributed_dd.stages.scoring import Evaluation


@dataclass(frozen=True)
class Experiment:
    """One distillation: data, experts, method, evaluation."""

    images_per_class: int = setting("synthetic images of every class")
    num_outer_steps: int = setting("updates of the synthetic set, or of the generator")
    data: DataSource = choice(DATA_SETS, "real images")
    method: Method = choice(METHODS, "what is distilled, and how")
    seed: int = setting("seed of everything random but the data split", 0)
    output: str = setting("folder of all results", "runs", identity=False)
    results: str | None = setting(
        "a folder or URI such as s3://bucket/runs to which the run folder is copied at every score and at "
        "the end, and from which it is fetched where it is not here (null: nowhere)",
        None,
        identity=False,
    )
    resume: Literal["auto", "never", "must"] = setting(
        "go on from a checkpoint: if there is one, never, or stop without one", "auto", identity=False
    )
    tracker: Literal["mlflow", "none"] = setting("where people compare runs", "mlflow", identity=False)
    checkpoint_every: int = setting("outer steps between checkpoints", 25, identity=False)
    preprocessing: Preprocessing = choice(PREPROCESSINGS, "pixels to network input", ZCA())
    network: Network = choice(NETWORKS, "network of experts, students and evaluation", ConvNet())
    experts: Experts = setting("expert training, for trajectory matching", default_factory=Experts)
    evaluate: Evaluation = setting("evaluation", default_factory=Evaluation)

    def __post_init__(self) -> None:
        for name in ("images_per_class", "num_outer_steps", "checkpoint_every"):
            require(getattr(self, name) >= 1, name, f"got {getattr(self, name)}", "1 or more")
        self.method.check(self.experts.num_epochs)

    @property
    def matching(self) -> TrajectoryMatching:
        """The method, where it is trajectory matching."""
        if not isinstance(self.method, TrajectoryMatching):
            raise TypeError(f"{self.method.name} is no trajectory matching")
        return self.method

    @property
    def generative(self) -> Generative:
        """The method, where it distils a generator."""
        if not isinstance(self.method, Generative):
            raise TypeError(f"{self.method.name} distils no generator")
        return self.method
