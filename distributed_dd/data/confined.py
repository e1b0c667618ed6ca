"""Files whose readers can be made to crash, hang or fill memory: read in a child process, which may.

A module that reads so has a ``main(path, out)``, called in the child, that ends in `write_confined`.
"""

import resource
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from distributed_dd.children import child_python
from distributed_dd.data.reading import check_memory, check_regular, place_of
from distributed_dd.errors import IntegrityError
from distributed_dd.places import displayable

REFUSED = 3
# What a file of so many bytes may take: read, copied, written, and as much again. Beside what torch itself takes.
MEMORY_PER_BYTE, SPARE_MEMORY = 4, 2**30
SECONDS, BYTES_PER_SECOND = 300, 2**21
LONGEST_MESSAGE = 300


def read_confined(module: str, path: Path, problem: str, *, allowed: str = "", fix: str = "") -> dict[str, Tensor]:
    """The tensors that ``python -m module path out`` writes.

    Raises:
        MissingInputError: no such file, or no regular one. IntegrityError: ``problem`` and why: the reader refuses the
            file, dies of it, or needs more memory or time than a file of its size should.
    """
    size = check_regular(path, allowed)
    check_memory(place_of(path), 2 * size, "its tensors")

    def refusal(reason: str) -> IntegrityError:
        return IntegrityError(place_of(path), f"{problem}: {reason}", allowed=allowed, fix=fix)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tensors.safetensors"
        command = child_python(module, [str(path.resolve()), str(out)])
        seconds = SECONDS + size / BYTES_PER_SECOND
        try:
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise refusal(f"it was not read in {seconds:.0f} seconds") from None
        if done.returncode != 0 or not out.exists():
            raise refusal(_said(done))
        try:
            return load_file(out)
        except (SafetensorError, OSError) as error:
            raise refusal(str(error)) from None


def write_confined(read: Callable[[str], dict[str, Tensor]], path: str, out: str) -> int:
    """In the child: what ``read`` finds in ``path``, within limits, to ``out``; or one line that says why not.

    Returns the exit code.
    """
    size = Path(path).stat().st_size
    try:
        _limit(size)
        save_file(read(path), out)
    except Exception as error:  # readers fail in many ways where a file is not what they expect
        first = next(iter(str(error).splitlines()), "")
        if isinstance(error, MemoryError) or "allocate memory" in first:
            first = f"it needs more memory than a file of {size:,} bytes should"
        print(f"{type(error).__name__}: {first}"[:LONGEST_MESSAGE].encode("ascii", "backslashreplace").decode())
        return REFUSED
    return 0


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """The child's last line, or that it died."""
    lines = (done.stdout.strip() or done.stderr.strip() or b"the reader died").decode(errors="replace").splitlines()
    return displayable(lines[-1][:LONGEST_MESSAGE])


def _limit(size: int) -> None:
    """Allow this process what a file of ``size`` bytes needs, above what it has already.

    The limit is one of addresses, which Linux keeps and other systems may not.
    """
    torch.set_num_threads(1)  # each would take addresses of its own
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    most = pages * resource.getpagesize() + MEMORY_PER_BYTE * size + SPARE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    disk = MEMORY_PER_BYTE * size + SPARE_MEMORY
    resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
