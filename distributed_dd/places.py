"""Names of people, data and configurations as names of files and folders. Standard library only."""

import hashlib
import re
import unicodedata

LONGEST_NAME = 100
"""Bytes of a name; file systems take 255, and what is written beside it adds to it."""
DIGITS = 8
# A slash of either kind, a sign that Windows refuses, and whatever a terminal would not show as it is.
_UNFIT = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')


def name_in_path(text: str) -> str:
    """``text`` as the name of one file or folder: never empty, hidden, a path, or longer than a file system takes.

    A plain name stays as it is. Another one loses what does not fit and gets a digest, so that two names that
    differ stay two names: ``cat/dog`` and ``cat_dog`` lie side by side.
    """
    fit = _UNFIT.sub("_", unicodedata.normalize("NFC", text)).strip().rstrip(".")
    fit = fit if not fit.startswith((".", "-", "~")) else f"_{fit[1:]}"
    if fit == text and 0 < len(fit.encode()) <= LONGEST_NAME:
        return text
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    short = fit.encode()[: LONGEST_NAME - DIGITS - 1].decode("utf-8", "ignore")
    return f"{short or '_'}-{mark}"
