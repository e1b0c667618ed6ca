"""Names and titles of what people watch of a method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Words:
    """What people see of a method: in reports, plots, MLflow's views, progress bars and sweeps.

    Attributes:
        losses: metric -> title of its plot. Every outer step has the first; views and plots show all.
        noted: metric -> the word beside the progress bar.
        series: further metrics that are plotted, as points -> title.
        rows: rows of a report that only this method has, or calls otherwise -> title.
        columns: those of them that a comparison has a column for -> its head.
        headline: the row by which a run is known.
        picture: what pictures on the way are called.
        parameters: fields by which runs are compared, ``key.path`` -> short name, the first ones first.
        compared: those of them that have a column of their own in the list of runs.
        about_columns: what these columns mean, in a sentence.
    """

    losses: Mapping[str, str]
    noted: Mapping[str, str]
    series: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    headline: str = "distilled"
    picture: str = "synthetic_set"
    parameters: Mapping[str, str] = field(default_factory=dict)
    compared: Sequence[str] = ()
    about_columns: str = ""


@dataclass(frozen=True)
class SweepAxis:
    """A direction in which the trials of a sweep differ, such as where their matching window lies.

    Attributes:
        label: of the axis of the picture. thing: what lies there. span: as a person says it before numbers.
    """

    label: str
    thing: str
    span: str


def tracked(name: str) -> str:
    """A short name as a tracker takes it, which allows no signs: T_minus."""
    return name.replace("-", "_minus").replace("+", "_plus").replace(" ", "_")
