"""The synthetic set under DeepSpeed: ZeRO 0 to 3, SGD with momentum, ready-made gradients."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from distributed_dd.backends.deepspeed_state import DeepSpeedState
from distributed_dd.backends.process_group import Apart
from distributed_dd.distillation.methods.trajectory_matching import ParameterSGD
from distributed_dd.distillation.sharded import Ranks
from distributed_dd.distillation.synthetic import SyntheticSet
from distributed_dd.distillation.unroll import MatchingGradient
from distributed_dd.distillation.unroll.problem import squared_norm
from distributed_dd.family import require, setting
from distributed_dd.stages.checkpoint import Saved
from distributed_dd.stages.material import device
from distributed_dd.stages.ports import Held

Span = tuple[int, int]


@dataclass(frozen=True)
class Zero:
    """How DeepSpeed shards the set (ZeRO: Rajbhandari et al., SC 2020); float32 throughout.

    In units of the set, each of W ranks holds between outer steps 2 at stage 0, 2 + 2/W at 1 and 2, 4/W
    at 3, and 2/W with ``own_rows``.
    """

    stage: Literal[0, 1, 2, 3] = setting(
        "what is sharded: 0 nothing, 1 momenta, 2 gradients too, 3 the set too", 0
    )
    own_rows: bool = setting(
        "each rank has rows of its own, as a part of the model, instead of a share of all (stage 0): half "
        "the memory of stage 3, and the set itself never travels", False,
    )  # fmt: skip
    offload: Literal["none", "momenta", "all"] = setting(
        "kept in the host's memory: momenta and their masters (stages 1 to 3), or the set too (stage 3)",
        "none",
    )

    def __post_init__(self) -> None:
        either = "own_rows without stage and offload, or stage 3 with offload"
        require(
            not self.own_rows or self.stage == 0, "own_rows",
            f"with stage {self.stage}, which cuts every parameter over the ranks", "stage 0", either,
        )  # fmt: skip
        require(
            not self.own_rows or self.offload == "none", "offload",
            f"{self.offload} with own_rows, where every rank updates its rows on its device", "none", either,
        )  # fmt: skip
        stages = {"none": (0, 1, 2, 3), "momenta": (1, 2, 3), "all": (3,)}[self.offload]
        require(
            self.stage in stages, "offload",
            f"{self.offload} with stage {self.stage}, at which DeepSpeed keeps it on every rank's device",
            f"with stage {' or '.join(map(str, stages))}", f"zero.stage: {stages[-1]}, or offload: none",
        )  # fmt: skip

    def __str__(self) -> str:
        rows = "own rows" if self.own_rows else f"ZeRO {self.stage}"
        return rows + ("" if self.offload == "none" else f" with {self.offload} in the host's memory")

    @property
    def parted(self) -> bool:
        """Whether a rank reads only the rows that it keeps."""
        return self.own_rows or self.stage == 3


class GivenGradients(torch.autograd.Function):
    """A scalar whose backward returns ready-made gradients, so that an engine's own backward takes them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor, ...], *tensors: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if outer.item() != 1:  # an engine that scales its loss; a copy of everything is worth avoiding
            gradients = tuple(gradient * outer for gradient in gradients)
        return (None, None, *gradients)


class DeepSpeedEngine:
    """One rank's part of the set; needs an initialised process group.

    At stages 0 to 2 every rank has all rows and hands in its part of their gradients. At stage 3 it reads and
    hands in only the rows that it keeps: class blocks are gathered one after the other and freed. With
    ``own_rows`` it has no others.
    """

    def __init__(
        self, zero: Zero, ranks: Ranks, saved: Saved, optimizers: Mapping[str, ParameterSGD]
    ) -> None:
        self.num_rows, self._zero, self._ranks = saved.num_rows, zero, ranks
        everything = (0, self.num_rows)
        self._kept = ranks.layout.kept(self.num_rows)
        self._read = self._kept if zero.parted else everything
        self._held = self._kept if zero.own_rows else everything
        self._classes = saved.rows("classes", *self._kept)
        self._labels = None if "labels" in optimizers else saved.rows("labels", *self._read).to(device())
        self._blocks = _class_blocks(saved, self._held)
        config = zero_config(zero, max(b - a for a, b in self._blocks) * saved.rows("images", 0, 1).numel())
        module = self._module(saved, config)
        self._learned = {name: _of(module, name) for name in optimizers}
        groups = [
            {"params": self._learned[name], "lr": sgd.learning_rate, "momentum": sgd.momentum}
            for name, sgd in optimizers.items()
        ]
        self._engine = _initialised(module, groups, config, Apart() if zero.own_rows else None)
        parameters = [p for group in groups for p in cast(list, group["params"])]
        self._state = DeepSpeedState(self._engine, zero.stage, ranks.layout, parameters)
        self._load_momenta(saved)
        self._outputs: tuple[Tensor, ...] = ()

    def _module(self, saved: Saved, config: dict) -> SyntheticSet:
        import deepspeed

        # Under Init a block is cut to this rank's part as soon as it is made: no rank ever has the whole set.
        context = deepspeed.zero.Init(config_dict_or_path=config) if self._zero.stage == 3 else nullcontext()

        def blocks() -> Iterator[tuple[Tensor, Tensor | None]]:
            for a, b in self._blocks:
                labels = saved.rows("labels", a, b).to(device()) if self._labels is None else None
                yield saved.rows("images", a, b).to(device()), labels

        with context:
            return SyntheticSet(blocks(), saved.value("learning_rate").to(device()))

    def read(self) -> Held:
        """All rows, or where the set is parted those that this rank keeps."""
        images, labels, rate = self._engine(*self._within(self._read))
        self._outputs = (images, rate) if labels is None else (images, rate, labels)
        held = labels if self._labels is None else self._labels
        return Held(self._read[0], images.detach(), held.detach(), rate.detach()[0])

    def _within(self, span: Span) -> Span:
        """Rows of the set as the module counts them."""
        return span[0] - self._held[0], span[1] - self._held[0]

    def renew_labels(self, labels: Tensor) -> None:
        """Replace the labels of the rows that `read` gives."""
        if self._labels is None:
            raise TypeError("labels are learned")
        self._labels.copy_(labels)

    def step(self, gradient: MatchingGradient) -> Tensor:
        """One update; ``gradient`` is used up."""
        norm = squared_norm(gradient.images) if self._zero.parted else None
        rate = gradient.learning_rate.reshape(1)
        if self._zero.own_rows:
            rate = self._ranks.sum(rate)  # the one thing that every rank has
        parts = [gradient.images, rate] + ([gradient.labels] if self._labels is None else [])
        if not self._zero.own_rows:
            # DeepSpeed takes the mean over ranks of what each hands in, and the sum is wanted.
            for part in parts:
                part.mul_(self._ranks.layout.num_ranks)
        loss = gradient.loss.mean().float().to(device())
        outputs, self._outputs = self._outputs, ()
        self._engine.backward(GivenGradients.apply(loss, tuple(parts), *outputs))
        norm = self._summed_squared_norm() if norm is None else norm
        self._engine.step()
        return norm

    def _summed_squared_norm(self) -> Tensor:
        """This rank's part of the squared norm, of gradients that DeepSpeed has summed up."""
        own: list[Any]
        if self._zero.stage == 0:
            own = [p.grad for p in self._learned["images"]] if self._ranks.layout.rank == 0 else []
        elif self._zero.offload == "none":
            own = self._engine.optimizer.averaged_gradients[0]
        else:
            own = [self._state.flats[0].grad]
        total = torch.zeros((), dtype=torch.float64, device=device())
        for part in own:
            total += squared_norm(part).to(total.device)
        return total

    def keep_rate(self, floor: float) -> bool:
        """Lift the student learning rate to ``floor`` if it is below."""
        (parameter,) = self._learned["learning_rate"]
        now = self._state.parameter(parameter)
        below = bool(now < floor)  # compared in float32, so that the floor itself passes
        if below:
            self._state.set_parameter(parameter, torch.full_like(now, floor))
        return below

    def rate(self) -> float:
        """The student learning rate."""
        return self._state.parameter(self._learned["learning_rate"][0]).item()

    @torch.no_grad()
    def kept(self) -> dict[str, Tensor]:
        """The rows that this rank keeps."""
        # Stage 3 gathers when its engine is called; at the others an engine's forward expects a backward.
        module = self._engine if self._zero.stage == 3 else self._engine.module
        images, labels, rate = module(*self._within(self._kept))
        if labels is None:
            a, b = (edge - self._read[0] for edge in self._kept)
            labels = cast(Tensor, self._labels)[a:b].clone()
        classes = self._classes.clone()
        return {"images": images, "labels": labels, "learning_rate": rate[0], "classes": classes}

    def momenta(self) -> dict[str, Tensor]:
        """Momenta of the rows that this rank keeps; each block is gathered, cut and freed."""
        found = {}
        for name, parameters in self._learned.items():
            if name == "learning_rate":
                found[name] = self._state.momentum(parameters[0])[0].clone()
                continue
            whole = (self._state.momentum(parameter) for parameter in parameters)
            cuts = (_overlap(block, self._kept) for block in self._blocks)
            found[name] = torch.cat([m[a:b].clone() for m, (a, b) in zip(whole, cuts, strict=True)])
        return found

    def _load_momenta(self, saved: Saved) -> None:
        names = saved.names()
        for name, parameters in self._learned.items():
            key = f"momentum.{name}"
            if key in names and name == "learning_rate":
                self._state.set_momentum(parameters[0], saved.value(key).reshape(1))
            elif key in names:
                for parameter, (a, b) in zip(parameters, self._blocks, strict=True):
                    self._state.set_momentum(parameter, saved.rows(key, a, b))

    def close(self) -> None:
        """Let go of DeepSpeed's hooks and buffers, and of what it keeps for the whole process."""
        from deepspeed.utils import groups

        self._engine.destroy()
        groups.mpu = None


def _of(module: SyntheticSet, name: str) -> list[nn.Parameter]:
    if name == "learning_rate":
        return [module.learning_rate]
    return [getattr(block, name) for block in module.blocks]


def _class_blocks(saved: Saved, held: Span) -> list[Span]:
    """The rows of each class, as far as they are among ``held``."""
    classes = saved.rows("classes", *held)
    sizes = torch.unique_consecutive(classes, return_counts=True)[1]
    return list(pairwise([held[0], *(held[0] + sizes.cumsum(0)).tolist()]))


def _overlap(block: Span, rows: Span) -> Span:
    """Rows as ``block`` counts its own."""
    low, high = max(block[0], rows[0]) - block[0], min(block[1], rows[1]) - block[0]
    return (low, high) if low < high else (0, 0)


def zero_config(zero: Zero, block_numbers: int) -> dict[str, Any]:
    """DeepSpeed's configuration; what it would change silently by default is said outright."""
    sharding: dict[str, Any] = {"stage": zero.stage, "reduce_bucket_size": block_numbers}
    if zero.stage == 3:
        sharding |= {
            # One block at a time: nothing gathered ahead, nothing kept, nothing whole on every rank.
            "stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": 0,
            "stage3_max_live_parameters": block_numbers, "stage3_param_persistence_threshold": 0,
            # By default DeepSpeed puts a function of its own in the place of torch's linear, for the whole
            # process and for good, whose second derivatives are wrong once compiled: the student's too.
            "memory_efficient_linear": False,
        }  # fmt: skip
    if zero.offload != "none":
        sharding["offload_optimizer"] = {"device": "cpu"}
    if zero.offload == "all":
        sharding["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,  # 1.0 by default
        "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9, "zero_optimization": sharding,
    }  # fmt: skip


def _initialised(module: nn.Module, groups: list[dict], config: dict, parallel: Apart | None) -> Any:
    return initialised_engine(module, torch.optim.SGD(groups, lr=1.0), config, parallel)


def initialised_engine(
    module: nn.Module, optimizer: torch.optim.Optimizer, config: dict, parallel: Apart | None = None
) -> Any:
    """DeepSpeed's engine of a module."""
    import deepspeed

    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=config, mpu=parallel, dist_init_required=False
    )
    return engine
