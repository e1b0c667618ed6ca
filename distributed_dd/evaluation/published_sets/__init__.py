"""Sets that others publish. To add a form: write its file here and enter it in `FORMS`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distributed_dd.errors import MissingInputError
from distributed_dd.evaluation.published_sets import archives, hub, picture_folders, pt_files
from distributed_dd.evaluation.published_sets.foreign_set import ForeignSet, Wanted


@dataclass(frozen=True)
class Form:
    """One form: how people call it, whether a place holds it, and its reader.

    ``read`` raises MissingInputError and IntegrityError for files that are not what the form says.
    """

    words: str
    holds: Callable[[Path], bool]
    read: Callable[[Path, Wanted], ForeignSet]


FORMS = (
    Form(pt_files.WORDS, pt_files.holds, pt_files.read),
    Form(hub.WORDS, hub.holds, hub.read),
    Form(archives.WORDS, archives.holds, archives.read),
    Form(picture_folders.WORDS, picture_folders.holds, picture_folders.read),
)


def form_of(source: Path) -> Form | None:
    """The first form of which ``source``, a file or a folder, holds a set."""
    return next((form for form in FORMS if form.holds(source)), None)


def read_published(source: Path, wanted: Wanted) -> ForeignSet:
    """The set in ``source``.

    Raises:
        MissingInputError: there is none in any form. IntegrityError: it is not what its form says.
    """
    form = form_of(source)
    if form is None:
        there = "holds no set in any form" if source.exists() else "there is no such file or folder"
        raise MissingInputError(str(source), there, allowed="; ".join(form.words for form in FORMS))
    return form.read(source, wanted)


__all__ = ["FORMS", "ForeignSet", "Form", "Wanted", "form_of", "read_published"]
