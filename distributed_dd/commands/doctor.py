"""What of this machine and this installation a run depends on."""

from argparse import Namespace
from itertools import chain

from distributed_dd.doctor.machine import machine
from distributed_dd.doctor.packages import packages
from distributed_dd.errors import MissingInputError
from distributed_dd.places import displayable
from distributed_dd.secrecy import without_secrets


def doctor(options: Namespace) -> int:
    """A line for each thing; what is missing decides the exit code."""
    missing = []
    for finding in chain(packages(options.start), machine(options.output)):
        print(without_secrets(displayable(finding.line())), flush=True)
        if finding.state == "missing":
            missing.append(finding.subject)
    if missing:
        raise MissingInputError(", ".join(missing), "no run is possible without", fix="as the lines above say")
    return 0
