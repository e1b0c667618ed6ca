"""A network that learns under DeepSpeed: its flat parameters and Adam's state under ZeRO 0 to 3."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from distributed_dd.backends.deepspeed_engine import GivenGradients, Zero, initialised_engine, zero_config
from distributed_dd.backends.deepspeed_state import DeepSpeedState
from distributed_dd.backends.local_network_engine import STATE, state_from
from distributed_dd.distillation.methods.generative import Adam
from distributed_dd.distillation.sharded import Ranks
from distributed_dd.stages.checkpoint import Saved
from distributed_dd.stages.material import device


class FlatParameters(nn.Module):
    """All parameters of a network as one, so that an engine cuts them evenly."""

    def __init__(self, theta_P: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta_P)

    def forward(self) -> Tensor:
        """A copy: an engine may free what it gathered."""
        return self.theta.clone()


class DeepSpeedNetworkEngine:
    """One rank's part of a network; needs an initialised process group.

    Gradients are made outside, as functions of `read`'s copy, and handed in ready-made: a gradient penalty,
    which differentiates twice, never runs through DeepSpeed's hooks.
    """

    def __init__(self, zero: Zero, ranks: Ranks, saved: Saved, name: str, adam: Adam) -> None:
        import deepspeed

        self._ranks, self._stage = ranks, zero.stage
        theta_P = saved.value(f"{name}.theta").to(device())
        config = zero_config(zero, len(theta_P))
        context = deepspeed.zero.Init(config_dict_or_path=config) if zero.stage == 3 else nullcontext()
        with context:
            module = FlatParameters(theta_P)
        optimizer = torch.optim.Adam(module.parameters(), adam.learning_rate, (adam.beta1, adam.beta2))
        self._engine, self._parameter = initialised_engine(module, optimizer, config), module.theta
        state = state_from(saved, name)
        self._state = DeepSpeedState(
            self._engine, zero.stage, ranks.layout, [module.theta], [*STATE.values()], state.pop("step")
        )
        for key, value in state.items():
            self._state.set_momentum(module.theta, value, key)

    @torch.no_grad()
    def read(self) -> Tensor:
        """All parameters, gathered; a copy."""
        import deepspeed

        cut = self._stage == 3
        with deepspeed.zero.GatheredParameters([self._parameter]) if cut else nullcontext():
            return self._parameter.detach().clone()

    def step(self, gradient_P: Tensor) -> None:
        """One update, with the sum over ranks of the gradients."""
        # DeepSpeed takes the mean over ranks of what each hands in, and the sum is wanted.
        gradient_P = gradient_P * self._ranks.layout.num_ranks
        zero = torch.zeros((), device=gradient_P.device)
        # Forward, backward and update as one: a network is also read where it is not updated.
        self._engine.backward(GivenGradients.apply(zero, (gradient_P,), self._engine()))
        self._engine.step()

    def state(self) -> dict[str, Tensor]:
        """Parameters and Adam's state, whole, on every rank."""
        found = {name: self._state.momentum(self._parameter, key).clone() for name, key in STATE.items()}
        theta = self._state.parameter(self._parameter).clone()
        return {"theta": theta, "updates": self._state.counted(), **found}

    def close(self) -> None:
        """Let go of DeepSpeed's hooks and buffers."""
        self._engine.destroy()
