"""Completion of the command line by the shell."""

from argparse import Namespace

from distributed_dd.completion import code_for


def completion(options: Namespace) -> int:
    """Print what the shell must run."""
    print(code_for(options.shell))
    return 0
