"""Import and export."""

from argparse import Namespace
from pathlib import Path

from distributed_dd.backends.console import ConsoleProgress
from distributed_dd.exchange import export_to, import_from


def import_(options: Namespace) -> int:
    """Other people's experts or distilled set, in our format."""
    given = (options.source, options.file, options.overrides, options.to, ConsoleProgress())
    folder, is_set = import_from(*given)
    if is_set:
        print(f"the set is in {folder}; distributed-dd evaluate {folder} scores it")
    else:
        print(f"experts are in {folder}; experts.store={folder} uses them")
    return 0


def export(options: Namespace) -> int:
    """A distilled set or experts, for other programs."""
    to = options.to or Path("exported")
    export_to(options.source, options.overrides, options.form, to, ConsoleProgress())
    print(f"output:   {to}")
    return 0
