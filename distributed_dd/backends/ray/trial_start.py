"""A Ray that is started and stopped, to see that it can be."""

import time

from distributed_dd.backends.ray.connection import connect


def seconds_to_start() -> float:
    """Start a local Ray of one core, stop it; seconds until it answered.

    Raises:
        UserError: it does not start. ImportError: it is not installed.
    """
    import ray

    began = time.monotonic()
    try:
        connect(None, 1)
        return time.monotonic() - began
    finally:
        ray.shutdown()
