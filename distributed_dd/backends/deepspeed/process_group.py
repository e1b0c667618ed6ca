"""Becoming one of several processes that compute together, in a way that DeepSpeed accepts."""

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


def join(address: str, port: int, rank: int, num_ranks: int, seconds: float) -> None:
    """Make this process rank ``rank`` of a process group: NCCL where it has a GPU, gloo elsewhere.

    Args:
        address, port: where rank 0 listens. seconds: how long a rank waits for the others.
    """
    on_gpu = torch.cuda.is_available()
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_RANK": "0",
        "LOCAL_SIZE": "1",
    }
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.ops

    # It would be compiled on first use, which takes a compiler and a minute, and hangs on a stale lock.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        "nccl" if on_gpu else "gloo",
        auto_mpi_discovery=False,
        verbose=False,
        timeout=timedelta(seconds=seconds),
    )


class Apart:
    """Tells DeepSpeed that ranks hold parts of one model, not copies of it, so that nothing is averaged.

    Every rank is alone in its data-parallel group; the model-parallel group is everybody.
    """

    def __init__(self) -> None:
        self._rank, self._num_ranks = dist.get_rank(), dist.get_world_size()
        self._alone = [dist.new_group([rank]) for rank in range(self._num_ranks)][self._rank]
        self._everybody = dist.new_group(range(self._num_ranks))

    def get_data_parallel_world_size(self) -> int:
        return 1

    def get_data_parallel_rank(self) -> int:
        return 0

    def get_data_parallel_group(self) -> Any:
        return self._alone

    def get_model_parallel_world_size(self) -> int:
        return self._num_ranks

    def get_model_parallel_rank(self) -> int:
        return self._rank

    def get_model_parallel_group(self) -> Any:
        return self._everybody
