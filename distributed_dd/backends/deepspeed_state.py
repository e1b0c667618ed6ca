"""Reading and writing whole what DeepSpeed has cut up: parameters, their masters and what optimisers keep."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distributed_dd.distillation.sharded.layout import Layout
from distributed_dd.stages.material import device

MOMENTUM = "momentum_buffer"


class DeepSpeedState:
    """Access by parameter, at every ZeRO stage. Every rank must ask for the same things in the same order.

    What the optimiser keeps beside each parameter is there from the start, as zeros: DeepSpeed makes
    fragments known only of what exists when it first looks, and a first step from zeros is as without.

    Args:
        kept: its names, as torch's optimiser has them.
        counted: updates made so far, where the optimiser counts them.
    """

    def __init__(
        self, engine: Any, stage: int, layout: Layout, parameters: Sequence[nn.Parameter],
        kept: Sequence[str] = (MOMENTUM,), counted: Tensor | None = None,
    ) -> None:  # fmt: skip
        self._engine, self._stage, self._layout = engine, stage, layout
        optimizer = engine.optimizer
        self._base = optimizer if stage == 0 else optimizer.optimizer
        self.flats: list[Tensor] = {
            0: lambda: list(parameters),
            1: lambda: list(optimizer.single_partition_of_fp32_groups),
            2: lambda: list(optimizer.single_partition_of_fp32_groups),
            3: lambda: list(optimizer.fp32_partitioned_groups_flat),
        }[stage]()
        for flat in self.flats:
            for name in kept:
                self._base.state[flat].setdefault(name, torch.zeros_like(flat))
        if stage in (1, 2):
            optimizer._lazy_init_hp_params_optimizer_state()
        if counted is not None:  # after the look: it would take the count for a fragment
            for flat in self.flats:
                self._base.state[flat]["step"] = counted.clone()

    def counted(self) -> Tensor:
        """Updates made so far."""
        return self._base.state[self.flats[0]]["step"].clone()

    def parameter(self, parameter: nn.Parameter) -> Tensor:
        """The parameter's master copy, whole."""
        from deepspeed.utils import safe_get_full_fp32_param

        value = parameter if self._stage == 0 else safe_get_full_fp32_param(parameter)
        return value.detach().view(self._shape(parameter))

    def momentum(self, parameter: nn.Parameter, name: str = MOMENTUM) -> Tensor:
        """What the optimiser keeps of the parameter, whole."""
        from deepspeed.utils import safe_get_full_optimizer_state

        if self._stage == 0:
            return self._base.state[parameter][name]
        return safe_get_full_optimizer_state(parameter, name).view(self._shape(parameter))

    @torch.no_grad()
    def set_parameter(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Overwrite a parameter and its master with a whole value that every rank has."""
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        value = value.to(device())
        if self._stage == 3:
            safe_set_local_fp32_param(parameter, self._own_part(parameter, value))
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.data.copy_(value)
            return
        if self._stage > 0:
            safe_set_full_fp32_param(parameter, value)  # the master alone
        parameter.data.copy_(value)

    @torch.no_grad()
    def set_momentum(self, parameter: nn.Parameter, value: Tensor, name: str = MOMENTUM) -> None:
        """Overwrite what the optimiser keeps of a parameter with a whole value that every rank has."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        value = value.to(device())
        if self._stage == 3:
            safe_set_local_optimizer_state(parameter, self._own_part(parameter, value), name)
        elif self._stage > 0:
            safe_set_full_optimizer_state(parameter, value, name)
        else:
            self._base.state[parameter][name].copy_(value)

    def _shape(self, parameter: nn.Parameter) -> torch.Size:
        return getattr(parameter, "ds_shape", parameter.shape)

    def _own_part(self, parameter: Any, value: Tensor) -> Tensor:
        """This rank's part of a value, cut as stage 3 cuts: equal parts, the last filled up.

        DeepSpeed's own setter of whole values reads beyond the end of one that does not divide by the ranks.
        """
        length = parameter.ds_tensor.numel()
        padded = torch.zeros(length * self._layout.num_ranks, device=value.device)
        padded[: value.numel()] = value.flatten()
        return padded[self._layout.rank * length :][:length]
