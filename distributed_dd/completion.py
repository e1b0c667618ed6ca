"""Answers to the tab key: verbs, options, files, and shipped configurations by name.

argcomplete talks with the shell. Nothing but the parsers is loaded, as a person waits.
"""

import argparse
import sys
from collections.abc import Callable, Iterable

from distributed_dd import presets
from distributed_dd.arguments import VERBS, Parser, with_arguments
from distributed_dd.errors import MissingInputError

CONFIGURATIONS = ("file", "paths", "source")
"""Arguments that take a configuration, a sweep or a folder."""


def code_for(shell: str) -> str:
    """What a shell must run to ask for completions.

    Raises:
        MissingInputError: argcomplete is not installed.
    """
    try:
        import argcomplete
    except ImportError:
        raise MissingInputError("argcomplete", "is not installed", fix="pip install argcomplete") from None
    return argcomplete.shellcode(["distributed-dd"], shell=shell)


def answer() -> None:
    """Say to the shell what could stand where it asks, and end this process."""
    try:
        import argcomplete
    except ImportError:
        sys.exit(1)
    argcomplete.autocomplete(_every_verb(), always_complete_options="long")


def _every_verb() -> argparse.ArgumentParser:
    """One parser with all verbs, whose arguments know what they may be."""
    parser = argparse.ArgumentParser("distributed-dd")
    verbs = parser.add_subparsers(parser_class=Parser)
    for verb, meaning in VERBS.items():
        of_verb = with_arguments(verbs.add_parser(verb, help=meaning), verb)
        for action in of_verb._actions:
            completer = _completer(verb, action.dest)
            if completer is not None:
                action.completer = completer  # type: ignore[attr-defined]
    return parser


def _completer(verb: str, argument: str) -> Callable[..., Iterable[str]] | None:
    """What an argument may be; None: any file."""
    if verb == "configs" and argument == "words":
        return lambda **asked: presets.names()
    if argument == "on":
        return lambda prefix, **asked: [*_named("clusters/"), *_files(prefix)]
    if argument in CONFIGURATIONS:
        folder = "tune/" if verb == "tune" else ""
        return lambda prefix, **asked: [*_named(folder), *_files(prefix)]
    if argument in ("overrides", "words"):
        return lambda **asked: ()
    return None


def _named(folder: str) -> list[str]:
    """Names of shipped files, of those in one folder, or of configurations of runs."""
    if folder:
        return [name for name in presets.names() if name.startswith(folder)]
    return [name for name in presets.names() if not name.startswith(("clusters/", "tune/"))]


def _files(prefix: str) -> list[str]:
    from argcomplete.completers import FilesCompleter

    return list(FilesCompleter(("yaml", "yml"))(prefix))
