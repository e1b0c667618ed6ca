"""The pages on which people compare runs."""

from argparse import Namespace

from distributed_dd.backends import mlflow_ui
from distributed_dd.backends.console import ConsoleProgress


def ui(options: Namespace) -> int:
    """Serve them until Ctrl-C."""
    mlflow_ui.serve(options.folder, options.port, ConsoleProgress().say)
