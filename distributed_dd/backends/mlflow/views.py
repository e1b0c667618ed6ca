"""Saved views of MLflow's pages: the columns and charts that a person would otherwise click together.

MLflow's pages read the experiment tag ``mlflow.sharedViewState.KEY``: JSON of name, createdAt, updatedAt and
state, where state is JSON again, as text. This is how MLflow 3.17 keeps its own saved views; a version that
does not know the tag shows its default columns.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from distributed_dd.evaluation.words import Words, tracked
from distributed_dd.outer.prelude import SharedRun

TAG = "mlflow.sharedViewState."
ACCURACY = "metrics.`validation_accuracy`"
LAST_CHOICE = "last_choice_accuracy"
PIXELS_PER_LETTER, PIXELS_MORE = 7, 50


@dataclass(frozen=True, kw_only=True)
class View:
    """A list of runs.

    Attributes:
        columns: such as ``metrics.`validation_accuracy```, ``params.`seed```, ``tags.`outcome```, in order.
        charts: as `line`, `scatter` .. make them.
        search: MLflow's filter, such as ``tags.role = 'run'``.
        order_by: a column; the largest comes first.
    """

    name: str
    columns: Sequence[str]
    charts: Sequence[Mapping[str, Any]]
    search: str
    order_by: str = ACCURACY
    section: str = field(default="chosen")

    @property
    def key(self) -> str:
        """The same for the same name: a view that is kept again replaces itself."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    def tag(self) -> tuple[str, str]:
        """Key and value of the experiment's tag."""
        now = int(time.time() * 1000)
        state = json.dumps(self._state(), separators=(",", ":"))
        envelope = {"name": self.name, "createdAt": now, "updatedAt": now, "state": state}
        return TAG + self.key, json.dumps(envelope)

    def _state(self) -> dict[str, Any]:
        names = {"a": (self.section, True), "b": ("Model metrics", False), "c": ("System metrics", False)}
        sections = [
            {
                "uuid": self.key + end,
                "name": name,
                "display": shown,
                "isReordered": False,
                "deleted": False,
                "isGenerated": True,
                "columns": 2,
                "cardHeight": 360,
            }
            for end, (name, shown) in names.items()
        ]
        charts = [
            {
                "uuid": f"{self.key}{number:02d}",
                "metricSectionId": f"{self.key}a",
                "deleted": False,
                "isGenerated": False,
                **chart,
            }
            for number, chart in enumerate(self.charts)
        ]
        widths = {c: PIXELS_PER_LETTER * len(c.split("`")[1]) + PIXELS_MORE for c in self.columns}
        return {
            "searchFilter": self.search,
            "orderByKey": self.order_by,
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(self.columns),
            "columnOrder": list(self.columns),
            "columnWidths": widths,
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": charts,
            "compareRunSections": sections,
            "viewMaximized": False,
            "runListHidden": False,
            "isAccordionReordered": True,
            "useGroupedValuesInCharts": False,
            "hideEmptyCharts": True,
            "groupBy": None,
            "groupsExpanded": {},
            "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        }


def runs_view(num_outer_steps: int, words: Words) -> View:
    """Ordinary runs, the best test accuracy of their headline row first."""
    test = f"metrics.`test_accuracy_{words.headline}`"
    columns = (
        test,
        ACCURACY,
        "metrics.`test_accuracy_random_real`",
        "params.`images_per_class`",
        *(f"params.`{tracked(words.parameters[key])}`" for key in words.compared),
        "params.`seed`",
        "attributes.`Dataset`",
    )
    first, *others = words.losses
    charts = (
        line("validation_accuracy"),
        line(first),
        bar(f"test_accuracy_{words.headline}"),
        *map(line, others),
        images(words.picture, num_outer_steps),
    )
    return View(name="runs", columns=columns, charts=charts, search="tags.role = 'run'", order_by=test)


def shared_view(shared: SharedRun) -> View:
    """What runs share and is made as a run of its own; the newest losses first."""
    columns = (*(f"metrics.`{loss}`" for loss in shared.losses), "params.`seed`", "attributes.`Dataset`")
    charts = (*map(line, shared.losses), images(shared.picture, shared.num_steps))
    return View(
        name=shared.title,
        columns=columns,
        charts=charts,
        search=f"tags.role = '{shared.role}'",
        order_by=columns[0],
    )


def sweep_view(sweep: str, images_per_class: int, varied: Sequence[str], first_rung: int, words: Words) -> View:
    """Trials of one study, finalists first; ``varied`` are parameters by name, the most important ones first.

    Pictures are those of the outer step ``first_rung``, which every trial made.
    """
    last = f"metrics.`{LAST_CHOICE}`"
    columns = (
        last,
        ACCURACY,
        "tags.`outcome`",
        *(f"params.`{name}`" for name in varied),
        f"metrics.`test_accuracy_{words.headline}`",
    )
    first, *_ = words.losses
    charts = (
        line("validation_accuracy"),
        parallel(varied[:3], "validation_accuracy"),
        *(scatter(name, "validation_accuracy") for name in varied[:2]),
        line(first),
        images(words.picture, first_rung),
    )
    search = f"tags.sweep = '{sweep}' and tags.images_per_class = '{images_per_class}'"
    name = f"sweep {sweep}, {images_per_class} per class"
    return View(name=name, columns=columns, charts=charts, search=search, order_by=last, section=name)


def address(server: str, experiment_id: str, key: str, charts: bool = False) -> str:
    """Where a view opens at once, among MLflow's pages for model training."""
    query = {"workflowType": "machine_learning", "viewStateShareKey": key}
    if charts:
        query["compareRunsMode"] = "CHART"
    return f"{server}/#/experiments/{experiment_id}/runs?{urlencode(query)}"


def line(metric: str) -> dict[str, Any]:
    """A metric over outer steps."""
    return {
        "type": "LINE",
        "metricKey": metric,
        "displayName": metric,
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
        "runsCountToCompare": 20,
    }


def bar(metric: str) -> dict[str, Any]:
    """The last value of a metric, run by run."""
    return {"type": "BAR", "metricKey": metric, "displayName": metric, "runsCountToCompare": 20}


def scatter(parameter: str, metric: str) -> dict[str, Any]:
    """A metric over a parameter."""
    return {
        "type": "SCATTER",
        "displayName": f"{metric} over {parameter}",
        "runsCountToCompare": 100,
        "xaxis": {"key": parameter, "type": "PARAM"},
        "yaxis": {"key": metric, "type": "METRIC"},
    }


def parallel(parameters: Sequence[str], metric: str) -> dict[str, Any]:
    """Parallel coordinates of all runs."""
    return {
        "type": "PARALLEL",
        "displayName": "parameters",
        "runsCountToCompare": 100,
        "selectedParams": list(parameters),
        "selectedMetrics": [metric],
        "showAllRuns": True,
    }


def images(key: str, step: int) -> dict[str, Any]:
    """The pictures of a step, without the parameters that would cover them."""
    return {
        "type": "IMAGE",
        "displayName": key,
        "imageKeys": [key],
        "step": step,
        "showRunParams": False,
        "runsCountToCompare": 10,
    }
