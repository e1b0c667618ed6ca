"""The C allocator of this process. Standard library only."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
TWO_GIB = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc reuse what tensors free, instead of handing it back and faulting it in again.

    A training step on the CPU frees and asks for the same megabytes over and over; by default each
    large block is mapped, zeroed and unmapped every time. The peak is the same, but the resident set
    stays at it. Elsewhere than on glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, TWO_GIB)
