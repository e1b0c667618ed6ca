"""Import and export."""

from argparse import Namespace
from pathlib import Path

from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.mlflow.replay import output_of, recorded, replay
from distributed_dd.errors import MissingInputError
from distributed_dd.exchange import export_to, import_from
from distributed_dd.verbs import ui_command

MOST_NAMED = 4
"""Exported files and folders that a line can name."""


def import_(options: Namespace) -> int:
    """Other people's experts or distilled set, in our format; or runs into MLflow."""
    if options.file is None:
        return _tell_mlflow(options.source)
    progress = ConsoleProgress()
    folder, is_set = import_from(options.source, options.file, options.overrides, options.to, progress)
    if is_set:
        print(f"the set is in {folder}; distributed-dd evaluate {folder} scores it")
    else:
        print(f"experts are in {folder}; experts.store={folder} uses them")
    return 0


def _tell_mlflow(source: Path) -> int:
    """What a tracker missed, from the run folders."""
    folders = recorded(source, ConsoleProgress().say)
    if not folders:
        raise MissingInputError(
            str(source),
            "holds no runs that a tracker was to hear of",
            allowed="a run folder, or a folder of runs; for .pt files a configuration is needed too: "
            "distributed-dd import SOURCE FILE",
        )
    database = output_of(folders[0]) / "mlflow.db"
    num_runs = replay(folders, database, ConsoleProgress().say)
    print(f"MLflow has all of {num_runs} runs: {ui_command(database.parent)}")
    return 0


def export(options: Namespace) -> int:
    """A distilled set or experts, for other programs."""
    to = options.to or Path("exported")
    before = _states(to)
    export_to(options.source, options.overrides, options.form, to, ConsoleProgress())
    written = sorted(name for name, state in _states(to).items() if before.get(name) != state)
    more = [".."] if len(written) > MOST_NAMED else []
    print(f"output:   {to} ({options.form}: {', '.join([*written[:MOST_NAMED], *more])})")
    return 0


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies in a folder, each entry with what changes where it is written anew."""
    return {path.name: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in folder.glob("*")}
