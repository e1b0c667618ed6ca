"""The command line. Nothing heavy is imported until a verb runs."""

import importlib
import io
import keyword
import os
import sys
import warnings

from distributed_dd import interrupts
from distributed_dd.arguments import VERBS, parsed
from distributed_dd.errors import UserError
from distributed_dd.family import did_you_mean
from distributed_dd.secrecy import without_secrets

MODULES = {"experts": "run", "distill": "run", "evaluate": "run", "import": "exchange", "export": "exchange"}
"""In ``commands/``, where it is not named like the verb."""
EXIT_CODES = "0 done, 2 configuration, 3 missing input, 4 diverged, 5 integrity, 130 interrupted, 1 other"


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb == "--version":
        from distributed_dd import __version__

        print(__version__)
        return 0
    if verb not in VERBS:
        print(f"error: unknown verb {verb!r}{did_you_mean(verb, VERBS)}\n\n{_help()}", file=sys.stderr)
        return 2
    try:
        options = parsed(verb, rest)
        with interrupts.told_from_errors():
            module = importlib.import_module(f"distributed_dd.commands.{MODULES.get(verb, verb)}")
            return getattr(module, f"{verb}_" if keyword.iskeyword(verb) else verb)(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (OSError, MemoryError, RecursionError) as error:
        if isinstance(error, BrokenPipeError):
            _write_nowhere()
            return 1
        print(f"error: {_machine_error(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what was saved", file=sys.stderr)
        return 130


def _machine_error(error: OSError | MemoryError | RecursionError) -> UserError:
    """What the machine refuses, wherever it comes from, as an error that can be acted on."""
    if isinstance(error, MemoryError):
        problem = f"not enough of it: {error}"
        return UserError("memory", problem, fix="smaller sizes; distributed-dd show estimates them")
    if isinstance(error, RecursionError):
        return UserError("input", "is nested too deeply", fix="look at the files that the command names")
    where = " to ".join(str(name) for name in (error.filename, error.filename2) if name) or type(error).__name__
    return UserError(where, error.strerror or str(error), fix="mend that and run the same command again")


def _warned(message: Warning | str, *where: object) -> None:
    """A warning as a line for a person."""
    print(f"warning: {without_secrets(str(message))}", file=sys.stderr)


def _help() -> str:
    verbs = "\n".join(f"  {verb:<12}{text}" for verb, text in VERBS.items())
    return (
        "distributed-dd VERB FILE [key.path=value ...] [--on CLUSTER_FILE]\n\n"
        f"verbs:\n{verbs}\n\nexit codes: {EXIT_CODES}\n"
        "example: distributed-dd run digits/datm_ipc10 num_outer_steps=500"
    )


def _write_nowhere() -> None:
    """Nobody reads any more, as behind ``| head``: what is left goes nowhere, or Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def entry_point() -> None:
    """The console command."""
    if "_ARGCOMPLETE" in os.environ:  # the shell asks, at a press of the tab key
        from distributed_dd.completion import answer

        answer()
    # Threads that wait should sleep: on a crowded machine those that spin bring jobs nearly to a stop. It
    # must be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    interrupts.listen()
    for stream in (sys.stdout, sys.stderr):  # names of files may be of any bytes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _warned  # type: ignore[assignment]
    try:
        try:
            sys.exit(main())
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _write_nowhere()
        sys.exit(1)
