"""The synthetic set under DeepSpeed: ZeRO 0 to 3, SGD with momentum, ready-made gradients."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distributed_dd.distillation.methods.trajectory_matching import ParameterSGD
from distributed_dd.distillation.sharded.layout import Layout
from distributed_dd.distillation.synthetic import SyntheticSet
from distributed_dd.distillation.unroll import MatchingGradient
from distributed_dd.family import require, setting
from distributed_dd.stages.checkpoint import Saved
from distributed_dd.stages.material import device
from distributed_dd.stages.ports import Held

MOMENTUM = "momentum_buffer"


@dataclass(frozen=True)
class Zero:
    """How DeepSpeed shards the set (Rajbhandari et al., ZeRO, 2020; float32 throughout)."""

    stage: Literal[0, 1, 2, 3] = setting(
        "what is sharded: 0 nothing, 1 momenta, 2 gradients too, 3 the set too", 0
    )
    offload: Literal["none", "momenta", "all"] = setting(
        "kept in the host's memory: momenta and their masters (stages 1 to 3), or the set too (stage 3)",
        "none",
    )

    def __post_init__(self) -> None:
        least = {"none": 0, "momenta": 1, "all": 3}[self.offload]
        require(
            self.stage >= least, "offload", f"{self.offload} with stage {self.stage}, which keeps them whole",
            f"stage {least} or more",
        )  # fmt: skip


class GivenGradients(torch.autograd.Function):
    """A scalar whose backward returns ready-made gradients, so that an engine's own backward takes them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor, ...], *tensors: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(gradient * outer for gradient in ctx.gradients))


class DeepSpeedEngine:
    """One rank's part of the set; needs an initialised process group.

    At stages 0 to 2 every rank holds all rows and hands in its part of their gradients. At stage 3 it reads,
    keeps and hands in only its own rows; class blocks are gathered one after the other and freed.
    """

    def __init__(self, zero: Zero, layout: Layout, saved: Saved, optimizers: dict[str, ParameterSGD]) -> None:
        self.num_rows, self._zero, self._layout = saved.num_rows, zero, layout
        self._span = layout.kept(self.num_rows)
        self._read_span = self._span if zero.stage == 3 else (0, self.num_rows)
        self._classes = saved.rows("classes", *self._span)
        self._labels = None if "labels" in optimizers else saved.rows("labels", *self._read_span).to(device())
        sizes = torch.unique_consecutive(saved.rows("classes", 0, self.num_rows), return_counts=True)[1]
        edges = [0, *sizes.cumsum(0).tolist()]
        self._blocks = list(pairwise(edges))
        config = _config(zero, max(b - a for a, b in self._blocks) * saved.rows("images", 0, 1).numel())
        module = self._module(saved, config)
        self._engine = _initialised(module, self._groups(module, optimizers), config)
        self._module_names = {name: list(self._parameters(name)) for name in optimizers}
        self._load_momenta(saved)
        self._outputs: tuple[Tensor, ...] = ()

    def _module(self, saved: Saved, config: dict) -> SyntheticSet:
        import deepspeed

        learned = self._labels is None
        # Under Init a block is cut to this rank's part as soon as it is made: no rank ever holds the whole.
        context = deepspeed.zero.Init(config_dict_or_path=config) if self._zero.stage == 3 else nullcontext()

        def blocks() -> Iterator[tuple[Tensor, Tensor | None]]:
            for a, b in self._blocks:
                labels = saved.rows("labels", a, b).to(device()) if learned else None
                yield saved.rows("images", a, b).to(device()), labels

        with context:
            return SyntheticSet(blocks(), saved.value("learning_rate").to(device()))

    def _groups(self, module: SyntheticSet, optimizers: dict[str, ParameterSGD]) -> list[dict]:
        return [
            {"params": _of(module, name), "lr": sgd.learning_rate, "momentum": sgd.momentum}
            for name, sgd in optimizers.items()
        ]

    def _parameters(self, name: str) -> list[nn.Parameter]:
        return _of(self._engine.module, name)

    def read(self) -> Held:
        """All rows, or at stage 3 those that this rank keeps."""
        images, labels, rate = self._engine(*self._read_span)
        self._outputs = (images, rate) if labels is None else (images, rate, labels)
        held = labels if self._labels is None else self._labels
        return Held(self._read_span[0], images.detach(), held.detach(), rate.detach()[0])

    def renew_labels(self, labels: Tensor) -> None:
        """Replace the labels of the rows that `read` gives."""
        if self._labels is None:
            raise TypeError("labels are learned")
        self._labels.copy_(labels)

    def step(self, gradient: MatchingGradient) -> Tensor:
        """One update. DeepSpeed takes the mean over ranks of what each hands in, and the sum is wanted."""
        parts = [gradient.images, gradient.learning_rate.reshape(1)]
        parts += [gradient.labels] if self._labels is None else []
        whole = tuple(part * self._layout.num_ranks for part in parts)
        loss = gradient.loss.mean().float().to(device())
        self._engine.backward(GivenGradients.apply(loss, whole, *self._outputs))
        norm = self._squared_norm(gradient.images)
        self._outputs = ()
        self._engine.step()
        return norm

    def _squared_norm(self, images: Tensor) -> Tensor:
        """This rank's part, of gradients that are no longer parts themselves."""
        if self._zero.stage == 3:
            return images.double().square().sum()
        own: list[Any]
        if self._zero.stage == 0:
            own = [b.grad for b in self._parameters("images")] if self._layout.rank == 0 else []
        elif self._zero.offload == "none":
            own = self._engine.optimizer.averaged_gradients[0]
        else:
            own = [self._flats()[0].grad]
        total = torch.zeros((), dtype=torch.float64, device=images.device)
        for part in own:
            total += part.double().square().sum().to(total.device)
        return total

    def keep_rate(self, floor: float) -> bool:
        """Lift the student learning rate to ``floor`` if it is below."""
        (rate,) = self._parameters("learning_rate")
        now = self._full(rate)
        below = bool(now < floor)
        if below:
            self._set(rate, torch.full_like(now, floor), None)
        return below

    def rate(self) -> float:
        """The student learning rate."""
        (rate,) = self._parameters("learning_rate")
        return self._full(rate).item()

    @torch.no_grad()
    def kept(self) -> dict[str, Tensor]:
        """The rows that this rank keeps."""
        # Outside the engine at stages 0 to 2: its forward would expect a backward.
        module = self._engine if self._zero.stage == 3 else self._engine.module
        images, labels, rate = module(*self._span)
        if labels is None:
            a, b = (edge - self._read_span[0] for edge in self._span)
            labels = cast(Tensor, self._labels)[a:b].clone()
        return {
            "images": images,
            "labels": labels,
            "learning_rate": rate[0],
            "classes": self._classes.clone(),
        }

    def momenta(self) -> dict[str, Tensor]:
        """Momenta of the rows that this rank keeps; each block is gathered, cut and freed."""
        found = {}
        for name, parameters in self._module_names.items():
            whole = (self._full(parameter, MOMENTUM) for parameter in parameters)
            found[name] = next(whole)[0] if name == "learning_rate" else torch.cat(
                [value[a:b].clone() for value, (a, b) in zip(whole, self._cuts(), strict=True)]
            )  # fmt: skip
        return found

    def _cuts(self) -> list[tuple[int, int]]:
        """Of each block, the rows that this rank keeps."""
        first, last = self._span
        return [(min(max(first - a, 0), b - a), min(max(last - a, 0), b - a)) for a, b in self._blocks]

    def _full(self, parameter: nn.Parameter, key: str | None = None) -> Tensor:
        """A parameter's master copy, or its optimiser state, whole; every rank must ask."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self._zero.stage == 0:
            value = parameter if key is None else self._engine.optimizer.state[parameter][key]
        elif key is None:
            value = safe_get_full_fp32_param(parameter)
        else:
            value = safe_get_full_optimizer_state(parameter, key)
        return value.detach().view(self._shape(parameter))

    def _shape(self, parameter: nn.Parameter) -> torch.Size:
        return getattr(parameter, "ds_shape", parameter.shape)

    @torch.no_grad()
    def _set(self, parameter: nn.Parameter, value: Tensor, key: str | None) -> None:
        """Overwrite a parameter, or its optimiser state, with a whole value that every rank has."""
        import deepspeed
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )  # fmt: skip

        value = value.to(device())
        if self._zero.stage == 3:
            # DeepSpeed's own setter cuts beyond the end of a parameter that does not divide by the ranks.
            part = self._own_part(parameter, value)
            if key is not None:
                safe_set_local_optimizer_state(parameter, part, key)
                return
            safe_set_local_fp32_param(parameter, part)
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.data.copy_(value)
        elif key is not None:
            if self._zero.stage == 0:
                self._engine.optimizer.state[parameter][key].copy_(value)
            else:
                safe_set_full_optimizer_state(parameter, value, key)
        else:
            if self._zero.stage > 0:
                safe_set_full_fp32_param(parameter, value)
            parameter.data.copy_(value)

    def _own_part(self, parameter: Any, value: Tensor) -> Tensor:
        length = parameter.ds_tensor.numel()
        padded = torch.zeros(length * self._layout.num_ranks, device=value.device)
        padded[: value.numel()] = value.flatten()
        return padded[self._layout.rank * length :][:length]

    def _load_momenta(self, saved: Saved) -> None:
        """Momenta exist from the start: DeepSpeed makes their fragments known only where they do."""
        optimizer = self._engine.optimizer
        flats = self._flats()
        for flat in flats:
            optimizer_state = self._base_optimizer().state[flat]
            optimizer_state.setdefault(MOMENTUM, torch.zeros_like(flat))
        if self._zero.stage in (1, 2):
            optimizer._lazy_init_hp_params_optimizer_state()
        names = saved.names()
        for name, parameters in self._module_names.items():
            if f"momentum.{name}" not in names:
                continue
            if name == "learning_rate":
                self._set(parameters[0], saved.value(f"momentum.{name}").reshape(1), MOMENTUM)
                continue
            for parameter, (a, b) in zip(parameters, self._blocks, strict=True):
                self._set(parameter, saved.rows(f"momentum.{name}", a, b), MOMENTUM)

    def _base_optimizer(self) -> torch.optim.Optimizer:
        optimizer = self._engine.optimizer
        return optimizer if self._zero.stage == 0 else optimizer.optimizer

    def _flats(self) -> list[Tensor]:
        optimizer = self._engine.optimizer
        if self._zero.stage == 0:
            return [p for parameters in self._module_names.values() for p in parameters]
        if self._zero.stage == 3:
            return list(optimizer.fp32_partitioned_groups_flat)
        return list(optimizer.single_partition_of_fp32_groups)

    def close(self) -> None:
        """Let go of DeepSpeed's hooks and buffers."""
        self._engine.destroy()


def _of(module: SyntheticSet, name: str) -> list[nn.Parameter]:
    if name == "learning_rate":
        return [module.learning_rate]
    return [getattr(block, name) for block in module.blocks]


def join(address: str, port: int, rank: int, num_ranks: int, seconds: float) -> None:
    """Make this process rank ``rank`` of a process group: NCCL where it has a GPU, gloo elsewhere."""
    from datetime import timedelta

    on_gpu = torch.cuda.is_available()
    os.environ |= {
        "MASTER_ADDR": address, "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(num_ranks),
        "LOCAL_RANK": "0", "LOCAL_SIZE": "1",
    }  # fmt: skip
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.ops

    # It would be compiled on first use, which takes a compiler and a minute, and hangs on a stale lock.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if on_gpu else "gloo"
    deepspeed.init_distributed(
        backend, auto_mpi_discovery=False, verbose=False, timeout=timedelta(seconds=seconds)
    )


def leave() -> None:
    """End this process's part in the process group."""
    dist.destroy_process_group()


def _config(zero: Zero, block_numbers: int) -> dict[str, Any]:
    """DeepSpeed's configuration; what it would change silently by default is said outright."""
    sharding: dict[str, Any] = {"stage": zero.stage, "reduce_bucket_size": block_numbers}
    if zero.stage == 3:
        sharding |= {
            # One block at a time: nothing gathered ahead, nothing kept, nothing whole on every rank.
            "stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": 0,
            "stage3_max_live_parameters": block_numbers, "stage3_param_persistence_threshold": 0,
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


def _initialised(module: nn.Module, groups: list[dict], config: dict) -> Any:
    import deepspeed

    engine, *_ = deepspeed.initialize(
        model=module, optimizer=torch.optim.SGD(groups, lr=1.0), config=config, dist_init_required=False
    )
    return engine
