"""What may stand behind each verb of the command line. Standard library only."""

import argparse
import re
import typing
from pathlib import Path

from distributed_dd.errors import ConfigError
from distributed_dd.family import did_you_mean
from distributed_dd.presets import located

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
    "completion": 'completes words at the tab key: eval "$(distributed-dd completion bash)"; zsh, fish',
    "import": "other people's expert buffers or set (pt, pictures, npz, parquet); or runs that MLflow did not hear of",
    "export": "a distilled set as pt, images, npz, hub or ddranking; experts of a configuration as replay buffers",
    "bench": f"measure speed and memory: bench {'|'.join(BENCHES)}",
}
SETTINGS = ("overrides", "paths")
"""Arguments that take ``key.path=value``."""
KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")


class Parser(argparse.ArgumentParser):
    """Knows settings, which are no options."""

    def error(self, message: str) -> typing.NoReturn:
        """End with the usage and a message."""
        # Intermixed parsing counts the optional overrides among what is missing.
        super().error(message.replace(", overrides", ""))

    def refuse_settings_with_dashes(self, words: list[str]) -> None:
        """Refuse ``--key value`` and ``--key=value`` that are no options of a verb which takes settings.

        Raises:
            ConfigError: there is one; it says how it is written.
        """
        options = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        if not any(action.dest in SETTINGS for action in self._actions):
            return
        for word, following in zip(words, [*words[1:], "-"], strict=True):
            option, equals, value = word.partition("=")
            key = option.removeprefix("--").replace("-", "_")
            if (
                not option.startswith("--")
                or not KEY.fullmatch(key)
                or any(name.startswith(option) for name in options)
            ):
                continue
            if not equals:
                value = "VALUE" if following.startswith("-") or "=" in following else following
            problem = f"is no option{did_you_mean(option, options)}; settings are written key=value, without dashes"
            raise ConfigError(option, problem, allowed=", ".join(options), fix=f"{key}={value}")


def located_from(text: str) -> Path:
    """A path, or the shipped configuration of that name."""
    return located(Path(text))


def parsed(verb: str, words: list[str]) -> argparse.Namespace:
    """The words behind a verb.

    Raises:
        ConfigError: a setting is written as an option. SystemExit: as argparse ends a program.
    """
    parser = with_arguments(Parser(prog=f"distributed-dd {verb}", description=VERBS[verb]), verb)
    parser.refuse_settings_with_dashes(words)
    options = parser.parse_intermixed_args(words)
    if verb == "report":
        options.overrides = [word for word in options.paths if "=" in word]
        options.paths = [located_from(word) for word in options.paths if "=" not in word]
    return options


def with_arguments(parser: "Parser", verb: str) -> "Parser":
    """The parser, with what may stand behind a verb."""
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
    if verb == "completion":
        parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="which shell")
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
    parser.add_argument("file", type=located_from, help=what)
    parser.add_argument("overrides", nargs="*", help="key.path=value")
    parser.add_argument("--on", type=located_from, metavar="CLUSTER_FILE", help="where tasks run (a local Ray)")
    return parser


def _exchange_parser(parser: "Parser", verb: str) -> "Parser":
    if verb == "import":
        parser.add_argument(
            "source",
            type=Path,
            help="folder with the .pt files, or one buffer; or runs, to tell them to MLflow",
        )
        parser.add_argument(
            "file", type=located_from, nargs="?", help="configuration that .pt files belong to: data, network, recipe"
        )
    else:
        parser.add_argument("source", type=located_from, help="run folder or distilled/ folder; or a configuration")
        parser.add_argument("--as", dest="form", default="pt", help="pt (default), images, npz, stored, hub, ddranking")
    parser.add_argument("overrides", nargs="*", help="key.path=value")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where the result goes")
    return parser
