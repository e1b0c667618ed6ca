"""A network as a pure function of one flat parameter vector."""

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import log_softmax

from distributed_dd.errors import ConfigError


class FlatNetwork:
    """``logits(theta_P, images_BCHW)``: a module as a function of one flat parameter vector.

    Args:
        network: any module. Its own parameter values are not used; ``theta_P`` holds all parameters,
            flattened in ``network.parameters()`` order. Buffers stay the module's own.
        precision: "float32" computes in theta's dtype; "bf16" runs the network under autocast.
        channels_last: lay images and kernels out as (B, H, W, C), which compiled code is faster with.
    """

    def __init__(self, network: nn.Module, precision: str = "float32", channels_last: bool = False) -> None:
        self.network = network
        named = list(network.named_parameters())
        self.names = [name for name, _ in named]
        self.shapes = [p.shape for _, p in named]
        self.sizes = [p.numel() for _, p in named]
        self.num_parameters = sum(self.sizes)
        self.precision, self.channels_last = precision, channels_last

    def logits(self, theta_P: Tensor, images_BCHW: Tensor) -> Tensor:
        """Class logits (B, K), in at least float32."""
        parts = theta_P.split(self.sizes)
        parts = [self._laid_out(v.view(s)) for v, s in zip(parts, self.shapes, strict=True)]
        values = dict(zip(self.names, parts, strict=True))
        images_BCHW = self._laid_out(images_BCHW)
        with torch.autocast(theta_P.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            out = functional_call(self.network, values, (images_BCHW,))
        return out.float() if out.dtype == torch.bfloat16 else out

    def _laid_out(self, tensor: Tensor) -> Tensor:
        if self.channels_last and tensor.ndim == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor


class Student(FlatNetwork):
    """A network as a pure function: no state of its own, nothing random.

    Args:
        network: any module; it is copied. Its own parameter values are not used.
        precision: "float32" computes in theta's dtype; "bf16" runs the network under autocast.
        channels_last: lay images and kernels out as (B, H, W, C), which compiled code is faster with.

    Raises:
        ConfigError: the network is not a pure function of its parameters.
    """

    def __init__(self, network: nn.Module, precision: str = "float32", channels_last: bool = False) -> None:
        refuse_impure(network)
        super().__init__(copy.deepcopy(network), precision, channels_last)
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)

    def loss(self, theta_P: Tensor, images_BCHW: Tensor, labels_BK: Tensor) -> Tensor:
        """Soft cross-entropy of a batch."""
        return soft_cross_entropy(self.logits(theta_P, images_BCHW), labels_BK)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Student":
        """This student with its constant buffers moved; parameters live in theta."""
        self.network.to(device=device, dtype=dtype)
        return self


def soft_cross_entropy(logits_BK: Tensor, labels_BK: Tensor) -> Tensor:
    """-(1/B) sum_i sum_k softmax(labels_i)_k log_softmax(logits_i)_k."""
    return -(labels_BK.softmax(1) * log_softmax(logits_BK, 1)).sum(1).mean()


def flatten(network: nn.Module) -> Tensor:
    """A copy of all parameters as one vector (P,), in ``parameters()`` order.

    Always a copy: on a CPU model ``detach().cpu()`` would be a view of the live tensors, and all
    checkpoints of a trajectory would be one and the same.
    """
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()]).clone()


def unflatten(theta_P: Tensor, network: nn.Module) -> None:
    """Copy ``theta_P`` into ``network``'s parameters."""
    parameters = list(network.parameters())
    with torch.no_grad():
        for p, part in zip(parameters, theta_P.split([p.numel() for p in parameters]), strict=True):
            p.copy_(part.view_as(p))


def refuse_impure(network: nn.Module) -> None:
    """Refuse a network that is not a function of its parameters alone: no student could follow it.

    Raises:
        ConfigError: the network keeps running statistics or draws noise.
    """
    for name, module in network.named_modules():
        if getattr(module, "running_mean", None) is not None:
            raise ConfigError(
                _place(name, module),
                "keeps running statistics, so the network is not a function of its parameters alone",
                allowed="norms without running statistics, such as instance or group norm",
                fix="choose another norm (or track_running_stats=False) for the student",
            )
    refuse_noise(network)


def refuse_noise(network: nn.Module) -> None:
    """Refuse a network that draws noise as it computes.

    Raises:
        ConfigError: a dropout layer is active.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            raise ConfigError(
                _place(name, module),
                "draws new noise at every call, so that no step can be replayed",
                allowed="dropout with p=0",
                fix="remove the dropout layer or call network.eval() first",
            )


def _place(name: str, module: nn.Module) -> str:
    return f"network layer {name or '(root)'} ({type(module).__name__})"
