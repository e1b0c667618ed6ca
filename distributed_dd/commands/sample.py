"""Sets sampled from a distilled generator."""

from argparse import Namespace

from distributed_dd import config
from distributed_dd.allocator import keep_freed_memory
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.family import build
from distributed_dd.methods import Sampling, write_sample


def sample(options: Namespace) -> int:
    """Write a frozen set, as an ordinary artefact."""
    keep_freed_memory()
    asked: Sampling = build(Sampling, config.laid_over({}, options.overrides))
    write_sample(asked, options.folder, options.to, ConsoleProgress())
    return 0
