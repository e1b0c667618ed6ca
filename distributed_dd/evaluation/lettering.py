"""Figures as files, and names that people and data chose as matplotlib draws them."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LONGEST_NAME, LONGEST_TITLE = 32, 120


def lettered(text: str, longest: int = LONGEST_NAME) -> str:
    """``text`` on one line, cut in its middle, with no sign that matplotlib would take for mathematics."""
    line = "".join(sign if sign.isprintable() else "?" for sign in text)
    if len(line) > longest:
        line = f"{line[: longest // 2 - 1]}..{line[len(line) - longest // 2 + 1 :]}"
    return line.replace("$", r"\$")


def legend(text: str) -> str:
    """``text`` for a legend, which leaves out what begins with an underscore."""
    return lettered(f" {text}" if text.startswith("_") else text, LONGEST_TITLE)


def as_png(figure: Any) -> bytes:
    """A figure's PNG; signs that no font has become boxes, without a word."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    with _boxes_for_missing_signs():
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def as_pdf(figure: Any) -> bytes:
    """A figure's PDF, for a paper: the same bytes whenever it is drawn, letters as text."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    buffer = io.BytesIO()
    with _boxes_for_missing_signs(), rc_context({"pdf.fonttype": 42}):
        FigureCanvasPdf(figure).print_pdf(buffer, metadata={"CreationDate": None})
    return buffer.getvalue()


@contextmanager
def _boxes_for_missing_signs() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield
