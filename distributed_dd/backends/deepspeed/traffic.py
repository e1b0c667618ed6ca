"""What DeepSpeed itself sends, by its own log."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Traffic:
    """Calls of collectives by a rank, and the bytes that it handed to them."""

    calls: int = 0
    num_bytes: int = 0


@contextmanager
def deepspeed_traffic() -> Iterator[Traffic]:
    """Count the body's; the numbers are there when it ends."""
    import deepspeed.comm as comm

    logger, traffic = comm.comm.comms_logger, Traffic()
    comm.configure(enabled=True, prof_all=True, verbose=False)
    logger.reset_data()
    try:
        yield traffic
    finally:
        comm.configure(enabled=False)
        for sizes in logger.comms_dict.values():
            for size, record in sizes.items():
                traffic.calls += record[0]
                traffic.num_bytes += size * record[0]
