"""The verbs of the command line: each takes parsed options and returns the exit code."""

from distributed_dd.commands.bench import bench
from distributed_dd.commands.configs import configs
from distributed_dd.commands.diagnose import diagnose
from distributed_dd.commands.exchange import export, import_
from distributed_dd.commands.init import init
from distributed_dd.commands.kinds import kinds
from distributed_dd.commands.report import report
from distributed_dd.commands.run import distill, evaluate, experts, run
from distributed_dd.commands.sample import sample
from distributed_dd.commands.show import show
from distributed_dd.commands.tune import tune
from distributed_dd.commands.ui import ui

__all__ = [
    "bench",
    "configs",
    "diagnose",
    "distill",
    "evaluate",
    "experts",
    "export",
    "import_",
    "init",
    "kinds",
    "report",
    "run",
    "sample",
    "show",
    "tune",
    "ui",
]
