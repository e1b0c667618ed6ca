"""Reading and writing whole what DeepSpeed has cut up: parameters, their masters and what rules keep."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distributed_dd.learning.device import device
from distributed_dd.learning.update_rules import UpdateRule
from distributed_dd.unroll.layout import Layout


class DeepSpeedSlots:
    """Access by parameter, at every ZeRO stage. Every rank must ask for the same things in the same order.

    What a rule keeps beside each parameter exists from the start, as zeros: DeepSpeed gives access only to
    what exists when it first looks, and a first step from zeros is the same as one from nothing.

    Args:
        engine: whose optimiser has one group for each tensor, in the order of ``pieces``.
        pieces: the parameters of each tensor.
        rules: its rule.
        numbers: what the rule keeps of each tensor as one number (), by torch's key.

    Attributes:
        flats: of each tensor, what the optimiser updates here in the place of its parameters.
    """

    def __init__(
        self,
        engine: Any,
        stage: int,
        layout: Layout,
        pieces: Mapping[str, Sequence[nn.Parameter]],
        rules: Mapping[str, UpdateRule],
        numbers: Mapping[str, Mapping[str, Tensor]],
    ) -> None:
        self._stage, self._layout = stage, layout
        optimizer = engine.optimizer
        base = optimizer if stage == 0 else optimizer.optimizer
        self._state: Any = base.state
        cut: Sequence[Tensor] = ()
        if stage in (1, 2):
            cut = optimizer.single_partition_of_fp32_groups
        elif stage == 3:
            cut = optimizer.fp32_partitioned_groups_flat
        self.flats: dict[str, list[Tensor]] = (
            {name: [flat] for name, flat in zip(pieces, cut, strict=True)}
            if stage
            else {name: list(parameters) for name, parameters in pieces.items()}
        )
        for name, flats in self.flats.items():
            for flat in flats:
                for key in rules[name].slots.values():
                    self._state[flat].setdefault(key, torch.zeros_like(flat))
        if stage in (1, 2):
            optimizer._lazy_init_hp_params_optimizer_state()
        for name, kept in numbers.items():  # after the look: it would take a number for a fragment
            for flat in self.flats[name]:
                self._state[flat].update({key: number.clone() for key, number in kept.items()})
        if stage == 3:
            for parameters in pieces.values():
                for parameter in parameters:
                    self._clear_filling(parameter)

    def number(self, name: str, key: str) -> Tensor:
        """What the rule keeps of a tensor as one number () under torch's ``key``; a copy."""
        return self._state[self.flats[name][0]][key].clone()

    def parameter(self, parameter: nn.Parameter) -> Tensor:
        """The parameter's master copy, whole."""
        from deepspeed.utils import safe_get_full_fp32_param

        value = parameter if self._stage == 0 else safe_get_full_fp32_param(parameter)
        return value.detach().view(self._shape(parameter))

    def slot(self, parameter: nn.Parameter, key: str) -> Tensor:
        """What the rule keeps of the parameter under torch's ``key``, whole."""
        from deepspeed.utils import safe_get_full_optimizer_state

        if self._stage == 0:
            return self._state[parameter][key]
        return safe_get_full_optimizer_state(parameter, key).view(self._shape(parameter))

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
    def set_slot(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        """Overwrite what the rule keeps of a parameter with a whole value that every rank has."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        value = value.to(device())
        if self._stage == 3:
            safe_set_local_optimizer_state(parameter, self._own_part(parameter, value), key)
        elif self._stage > 0:
            safe_set_full_optimizer_state(parameter, value, key)
        else:
            self._state[parameter][key].copy_(value)

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

    @torch.no_grad()
    def _clear_filling(self, parameter: Any) -> None:
        """Zero what fills up the last part of a parameter.

        Stage 3 leaves there what was in memory, and a norm of the whole tensor would take it in.
        """
        from deepspeed.utils import safe_get_local_fp32_param, safe_set_local_fp32_param

        part = safe_get_local_fp32_param(parameter).detach().clone()
        part[max(parameter.ds_numel - self._layout.rank * len(part), 0) :] = 0
        safe_set_local_fp32_param(parameter, part)
