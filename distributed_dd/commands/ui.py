"""The pages on which people compare runs."""

from argparse import Namespace

from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.mlflow import ui as mlflow_ui


def ui(options: Namespace) -> int:
    """Serve them until Ctrl-C."""
    mlflow_ui.serve(options.folder, options.port, ConsoleProgress().say)
