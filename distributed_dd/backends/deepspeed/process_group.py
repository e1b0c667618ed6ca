"""Becoming one of several processes that compute together, in a way that DeepSpeed accepts."""

import ipaddress
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


def listen(host: str) -> socket.socket:
    """A socket that listens at ``host`` and at no other address of this machine, on a port that was free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.bind((host, 0))
    listening.listen()
    return listening


@dataclass(frozen=True)
class Meeting:
    """Where ranks meet: the address of the first, and for the first itself the socket it listens with."""

    host: str
    port: int
    listening: socket.socket | None


def join(meeting: Meeting, rank: int, num_ranks: int, seconds: float) -> None:
    """Make this process rank ``rank`` of a process group: NCCL where it has a GPU, gloo elsewhere.

    Args:
        meeting: where the ranks meet. seconds: how long a rank waits for the others.
    """
    on_gpu, timeout = torch.cuda.is_available(), timedelta(seconds=seconds)
    os.environ |= {
        "MASTER_ADDR": meeting.host,
        "MASTER_PORT": str(meeting.port),
        "RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_RANK": "0",
        "LOCAL_SIZE": "1",
    }
    if ipaddress.ip_address(meeting.host).is_loopback:
        # Else both libraries would look for an interface that other machines reach, and listen there.
        names = [name for _, name in socket.if_nameindex()]
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ[variable] = "lo" if "lo" in names else "lo0"
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.ops

    # It would be compiled on first use, which takes a compiler and a minute, and hangs on a stale lock.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend, listening = "nccl" if on_gpu else "gloo", meeting.listening
    store = dist.TCPStore(
        meeting.host,
        meeting.port,
        num_ranks,
        listening is not None,
        timeout=timeout,
        # Left to itself it would listen at every address of the machine.
        master_listen_fd=None if listening is None else listening.detach(),
    )
    dist.init_process_group(backend, store=store, rank=rank, world_size=num_ranks, timeout=timeout)
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False, timeout=timeout)


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
