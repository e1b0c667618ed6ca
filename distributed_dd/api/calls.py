"""The functions: each does what the verb of its name does, in the same folders, and says progress as it does.

They raise `UserError` where the command line prints its message and ends; the same call again goes on from what was
saved, or finds everything done.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distributed_dd import verbs
from distributed_dd.api.guest import as_a_guest
from distributed_dd.api.inputs import Config, file_of, run_of, source_of, typed
from distributed_dd.api.results import Result, TuneResult
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.composition import cluster_from
from distributed_dd.errors import ConfigError
from distributed_dd.experiment_run import Run
from distributed_dd.folder_evaluation import Evaluated, is_set
from distributed_dd.sweeps.plan import planned
from distributed_dd.sweeps.results import best_path
from distributed_dd.sweeps.sweeping import sweeping
from distributed_dd.verbs import Comparison

Place = str | os.PathLike[str]


def run(
    config: Config, /, *, on: Config | None = None, overrides: Mapping[str, Any] | None = None, **more: Any
) -> Result:
    """Experts, distil, evaluate, report, as ``distributed-dd run``; what is done already is not done again.

    Args:
        config: a file, a name such as ``"digits/datm_ipc10"``, or a dict of plain values.
        on: where tasks run: a cluster file, its name, or its values; by default a local Ray.
        overrides: what wins over the configuration: ``{"evaluate.num_networks": 2}`` or ``{"evaluate":
            {"num_networks": 2}}``.
        more: the same as keywords, which win over ``overrides``: ``num_outer_steps=5, evaluate={"num_networks": 2}``.

    Raises:
        UserError: as the command line explains it. ConfigError, one of them: nothing was started.
    """
    with as_a_guest():
        one = run_of(config, overrides, more, on)
        return _reported(one, verbs.run_all(one))


def distill(
    config: Config, /, *, on: Config | None = None, overrides: Mapping[str, Any] | None = None, **more: Any
) -> Result:
    """What runs share where it is missing, then the set or generator, without a test, as ``distributed-dd distill``.

    Arguments and errors as `run`. The result has the report of the run only where that was there already.
    """
    with as_a_guest():
        one = run_of(config, overrides, more, on)
        verbs.distill_only(one)
        return Result.of(one, one.report() if one.is_finished else {})


def evaluate(
    what: Config | Result,
    config: Config | None = None,
    /,
    *,
    on: Config | None = None,
    overrides: Mapping[str, Any] | None = None,
    **more: Any,
) -> Result | Evaluated:
    """Scores of what was distilled, as ``distributed-dd evaluate``.

    Args:
        what: a result or its folder, which is tried on other networks, with settings such as ``networks=["mlp"]`` or
            ``protocol="dsa"``; or a configuration whose run has distilled its set.
        config: where ``what`` is a set of others, the configuration on whose data and by whose recipe it is judged.
        on, overrides, more: as in `run`.

    Returns:
        `Evaluated` of a result, a folder or a set; `Result` of a configuration.

    Raises:
        UserError: as the command line explains it.
    """
    with as_a_guest():
        source = what.folder if isinstance(what, Result) else source_of(what)
        if not isinstance(source, Path) or not is_set(source):
            if config is not None:
                problem = "is a configuration beside another: it is for sets of others"
                raise ConfigError("the second argument", problem, fix="leave it out")
            one = run_of(source, overrides, more, on)
            return _reported(one, verbs.evaluate_run(one))
        judged_by = None if config is None else source_of(config)
        cluster = cluster_from(None if on is None else source_of(on))
        return verbs.evaluate_set(source, judged_by, typed(overrides, more), cluster, ConsoleProgress())


def tune(
    file: Place, /, *, on: Config | None = None, overrides: Mapping[str, Any] | None = None, **more: Any
) -> TuneResult:
    """Search the space of a sweep file for each number of images per class, as ``distributed-dd tune``.

    Args:
        file: the sweep, or a name such as ``"tune/digits_datm_window"``.
        on, overrides, more: as in `run`; Ray Tune runs the trials.

    Raises:
        UserError: as the command line explains it.
    """
    with as_a_guest():
        plan = planned(file_of(file), typed(overrides, more))
        sweep = sweeping(plan, cluster_from(None if on is None else source_of(on)))
        studies = sweep.run()
        for line in verbs.last_lines_of_sweep(plan, studies):
            sweep.progress.note(line)
        best = {one.images_per_class: best_path(plan, one.images_per_class) for one in studies if one.best}
        return TuneResult(folder=plan.folder, studies=studies, best=best)


def report(
    what: Config | Result | Iterable[Place | Result] = "runs",
    /,
    *,
    to: Place | None = None,
    overrides: Mapping[str, Any] | None = None,
    **more: Any,
) -> Result | Comparison:
    """The report of a finished run, or all runs side by side, as ``distributed-dd report``. Nothing is computed.

    Args:
        what: a configuration, whose finished run is opened; or a run folder, a folder of runs, or several of these
            and of results, which are compared.
        to: the folder of the comparison's table and plots; by default ``comparison/`` in the first folder.
        overrides, more: of a configuration, as in `run`.

    Returns:
        `Result` of a configuration; `Comparison` of folders.

    Raises:
        UserError: as the command line explains it, such as MissingInputError where nothing is finished.
    """
    with as_a_guest():
        if not isinstance(what, str | os.PathLike | Mapping | Result):
            return _compared([*what], to)
        source = what if isinstance(what, Result) else source_of(what)
        if isinstance(source, Result) or (isinstance(source, Path) and is_set(source)):
            return _compared([source], to)
        one = run_of(source, overrides, more, None)
        return Result.of(one, verbs.report_of(one))


def _compared(several: list[Any], to: Place | None) -> Comparison:
    folders = [one.folder if isinstance(one, Result) else file_of(one, "folders, or results") for one in several]
    return verbs.compare(folders, None if to is None else Path(os.path.expanduser(to)), ConsoleProgress().say)


def _reported(one: Run, report: dict[str, Any]) -> Result:
    """The result; what a verb says at the end goes into the log alone, as the result says it."""
    for line in verbs.last_lines(one, report):
        one.progress.note(line)
    return Result.of(one, report)
