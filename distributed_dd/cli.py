"""The command line. Nothing heavy is imported until a verb runs."""

import argparse
import importlib
import io
import keyword
import os
import sys
import typing
import warnings
from pathlib import Path

from distributed_dd import interrupts
from distributed_dd.errors import UserError
from distributed_dd.family import did_you_mean
from distributed_dd.presets import located
from distributed_dd.secrecy import without_secrets

BENCHES = ("machine", "unroll", "experts", "scheduling", "sharded", "generator", "kernel", "evaluation", "growth")
VERBS = {
    "init": "write a first configuration for your own pictures, .npz or a known data set: init pets --data FOLDER",
    "doctor": "look at this machine and installation: packages, GPUs, disks, cores, and what to do",
    "run": "experts, distill, evaluate, report; what is done already is not done again",
    "experts": "train the experts that are missing (of a generative method: the GAN)",
    "distill": "distil the set or generator (what it starts from is trained first, where it is missing)",
    "evaluate": "score what was distilled and its controls on the test split; or a folder, or THEIR_SET CONFIG",
    "sample": "a set of any size from a distilled generator: sample RUN_FOLDER images_per_class=50",
    "tune": "search matching windows, rates .. for each images per class: distributed-dd tune SWEEP_FILE",
    "diagnose": "before hours are spent: does the loss know accuracy? the coreset to beat, predicted time",
    "report": "print the report of a finished run; or compare all runs in folders",
    "show": "print the resolved configuration, what is present, and an estimate of the work",
    "ui": "MLflow's pages for a folder of runs, on this machine: distributed-dd ui [runs]",
    "configs": "list the configurations that come with it, by name: distributed-dd configs [digits ..]",
    "kinds": "list every setting and all that can be chosen by kind; or a part: kinds method.segments",
    "import": "other people's expert buffers or set (pt, pictures, npz, parquet); or runs that MLflow did not hear of",
    "export": "a distilled set as pt, images, npz, hub or ddranking; experts of a configuration as replay buffers",
    "bench": f"measure speed and memory: bench {'|'.join(BENCHES)}",
}
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
    options = _parser(verb).parse_intermixed_args(rest)
    if verb == "report":
        options.overrides = [word for word in options.paths if "=" in word]
        options.paths = [_located(word) for word in options.paths if "=" not in word]
    try:
        with interrupts.told_from_errors():
            module = importlib.import_module(f"distributed_dd.commands.{MODULES.get(verb, verb)}")
            return getattr(module, f"{verb}_" if keyword.iskeyword(verb) else verb)(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (OSError, MemoryError, RecursionError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        # Intermixed parsing counts the optional overrides among what is missing.
        super().error(message.replace(", overrides", ""))


def _help() -> str:
    verbs = "\n".join(f"  {verb:<10}{text}" for verb, text in VERBS.items())
    return (
        "distributed-dd VERB FILE [key.path=value ...] [--on CLUSTER_FILE]\n\n"
        f"verbs:\n{verbs}\n\nexit codes: {EXIT_CODES}\n"
        "example: distributed-dd run digits/datm_ipc10 num_outer_steps=500"
    )


def _located(text: str) -> Path:
    return located(Path(text))


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"distributed-dd {verb}", description=VERBS[verb])
    if verb == "kinds":
        what = "only this: a setting by its path, a family or a kind, such as method.segments, data, resnet18"
        parser.add_argument("words", metavar="WORD", nargs="*", help=what)
        return parser
    if verb == "init":
        parser.add_argument(
            "name", type=Path, nargs="?", default=Path("distil"), help="file to write: NAME.yaml (distil)"
        )
        data = "folder of pictures, FILE.npz, or a data set by name (digits; mnist, cifar10 ..)"
        parser.add_argument("--data", metavar="PATH_OR_KIND", default="digits", help=data)
        parser.add_argument("--ipc", type=int, metavar="N", help="images per class (10, or 1 where classes are small)")
        parser.add_argument(
            "--method", metavar="KIND", help="kind or name of a method, such as trajectory_matching or dsa"
        )
        return parser
    if verb == "doctor":
        parser.add_argument("--start", action="store_true", help="start a local Ray and stop it again, some seconds")
        parser.add_argument("--output", type=Path, metavar="FOLDER", default=Path("runs"), help="where results will go")
        return parser
    if verb == "configs":
        parser.add_argument("words", nargs="*", help="only those with these words in their names; or one name")
        return parser
    if verb == "ui":
        parser.add_argument("folder", type=Path, nargs="?", default=Path("runs"), help="output= of the runs")
        parser.add_argument("--port", type=int, default=5000, help="5000 by default")
        return parser
    if verb == "bench":
        parser.add_argument("what", choices=BENCHES, help="what to measure")
        parser.add_argument("--json", action="store_true", help="print JSON for machines")
        parser.add_argument("--quick", action="store_true", help="small sizes, for a first look")
        return parser
    if verb == "report":
        parser.add_argument("paths", nargs="*", help="run folders or folders of runs (runs/); or FILE key=value")
        parser.add_argument("--to", type=Path, metavar="FOLDER", help="where tables and plots go")
        parser.set_defaults(on=None)
        return parser
    if verb == "sample":
        parser.add_argument("folder", type=Path, help="run folder, or its generator/ folder")
        parser.add_argument("overrides", nargs="*", help="images_per_class=N, seed=S")
        parser.add_argument("--to", type=Path, metavar="FOLDER", help="RUN_FOLDER/samples/ipcN-seedS")
        return parser
    if verb in ("import", "export"):
        return _exchange_parser(parser, verb)
    what = "configuration: a file, or a name such as digits/datm_ipc10 (distributed-dd configs lists them)"
    if verb == "diagnose":
        what += "; or a sweep, whose pairs are there"
    if verb == "tune":
        what = "sweep: a file, or a name such as tune/digits_datm_window"
    what += (
        "; or the folder of a set or generator; or a set of others, and then a configuration"
        if verb == "evaluate"
        else ""
    )
    parser.add_argument("file", type=_located, help=what)
    parser.add_argument("overrides", nargs="*", help="key.path=value")
    parser.add_argument("--on", type=_located, metavar="CLUSTER_FILE", help="where tasks run (a local Ray)")
    return parser


def _exchange_parser(parser: argparse.ArgumentParser, verb: str) -> argparse.ArgumentParser:
    if verb == "import":
        parser.add_argument(
            "source",
            type=Path,
            help="folder with the .pt files, or one buffer; or runs, to tell them to MLflow",
        )
        parser.add_argument(
            "file", type=_located, nargs="?", help="configuration that .pt files belong to: data, network, recipe"
        )
    else:
        parser.add_argument("source", type=_located, help="run folder or distilled/ folder; or a configuration")
        parser.add_argument("--as", dest="form", default="pt", help="pt (default), images, npz, stored, hub, ddranking")
    parser.add_argument("overrides", nargs="*", help="key.path=value")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where the result goes")
    return parser


def entry_point() -> None:
    """The console command."""
    # Threads that wait should sleep: on a crowded machine those that spin bring jobs nearly to a stop. It
    # must be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    interrupts.listen()
    for stream in (sys.stdout, sys.stderr):  # names of files may be of any bytes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _warned  # type: ignore[assignment]
    sys.exit(main())
