"""Where a process computes."""

import torch


def device() -> torch.device:
    """The accelerator that this process may use, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
