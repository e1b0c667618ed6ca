"""How numbers and tables are written, everywhere alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate


def plus_minus(mean: float, std: float, num_networks: int) -> str:
    """Mean ± standard deviation of shares in [0, 1], in per cent; of one network, the spread is unknown."""
    return f"{100 * mean:.1f} ± {100 * std:.1f}" if num_networks > 1 else f"{100 * mean:.1f}"


def percent(row: Mapping[str, Any]) -> str:
    """The accuracy of a row of a report, in per cent."""
    return plus_minus(row["accuracy_mean"], row["accuracy_std"], row["num_networks"])


def latex(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table for a paper, by the package booktabs, with a newline at its end."""
    text = tabulate(lines, header, tablefmt="latex_booktabs", disable_numparse=True)
    return text.replace("±", r"$\pm$") + "\n"


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table as Markdown, with a newline at its end."""
    return tabulate(lines, header, tablefmt="pipe", disable_numparse=True) + "\n"
