"""Does the objective know anything? Asked before a distillation, or of the trials of a sweep."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Column, Table

from distributed_dd import config
from distributed_dd.allocator import keep_freed_memory
from distributed_dd.backends.local.console import ConsoleProgress
from distributed_dd.backends.local.terminal import terminal
from distributed_dd.composition import cluster_from
from distributed_dd.diagnosing import Diagnose, Diagnosing
from distributed_dd.durable import write_bytes, write_json
from distributed_dd.errors import ConfigError, MissingInputError
from distributed_dd.evaluation.diagnosis import (
    Pair,
    as_values,
    best_of,
    duration,
    pairs_in,
    read,
    readings_of,
    table,
)
from distributed_dd.evaluation.diagnosis_plot import diagnosis_png
from distributed_dd.experiment import experiment_of
from distributed_dd.family import build
from distributed_dd.methods import words_by_kind
from distributed_dd.places import shown_from_here as shown
from distributed_dd.sweeps.pairs import is_sweep, levels_of
from distributed_dd.sweeps.plan import planned

GROUP = "diagnose"
WIDTH_OF_A_FILE = 140


def diagnose(options: Namespace) -> int:
    """Of a configuration, or of a sweep by its file or its folder."""
    keep_freed_memory()
    if options.file.is_dir():
        return _of_a_sweep(options.file, options.overrides)
    values = config.read(options.file, options.overrides)
    if "space" in values:
        folder = planned(options.file, options.overrides).folder
        if not is_sweep(folder):
            raise MissingInputError(str(folder), "has no report yet", fix=f"distributed-dd tune {options.file}")
        return _of_a_sweep(folder, [])
    asked: Diagnose = build(Diagnose, values.pop(GROUP, {}), GROUP)
    diagnosing = Diagnosing(experiment=experiment_of(values), asked=asked, cluster=cluster_from(options.on))
    say = diagnosing.progress.say
    if known := diagnosing.known():
        say("this diagnosis is there already; nothing was done again")
    record = known or diagnosing.diagnose()
    _print(record, say)
    say(f"picture:  {diagnosing.folder / 'diagnosis.png'}")
    say(f"output:   {diagnosing.folder / 'diagnosis.json'}")
    return 0


def _print(record: Mapping[str, Any], say: Any) -> None:
    """The table, the verdict, what is to be beaten, what a distillation takes."""
    pairs, facts = pairs_in(record), record["facts"]
    _print_table(
        f"{record['dataset']}, {record['method']}, {record['images_per_class']} per class", pairs, record["loss"]
    )
    networks, epochs = record["asked"]["num_networks"], facts["num_epochs"]
    of = facts["num_epochs_of_evaluation"]
    say(
        f"loss: the mean of {len(facts['outer_steps'])} outer steps, the same for every set; validation: "
        f"{_number(networks, 'fresh network')} on each, {epochs}{f' of {of}' if epochs < of else ''} epochs, "
        f"{facts['num_validation']} images; the test split was not touched"
    )
    everywhere, among_random = readings_of(pairs)
    say(everywhere.line())
    if among_random.rho is not None:
        say(f"among random real images alone: {among_random.correlation()}")
    form = record.get("form", {})
    if form:
        say(_at_equal_bytes(form, record["images_per_class"]))
    if (best := _to_beat(pairs, form.get("controls"))) is not None:
        say(f"to beat: {best[0]}, {100 * best[1]:.1f} % on validation")
    for line in _predicted(record["predicted"]):
        say(line)


def _at_equal_bytes(form: Mapping[str, Any], images_per_class: int) -> str:
    """How sets were made comparable, where the distilled one is stored in a form."""
    pictures = _number(form["pictures"], "picture")
    line = f"form: every set was stored in the form {form['kind']} and read again, {pictures} of a class in the bytes"
    return f"{line} of {_number(images_per_class, 'image')} at most"


def _to_beat(pairs: Sequence[Pair], controls: Sequence[Mapping[str, Any]] | None) -> tuple[str, float] | None:
    """Name and accuracy of the best coreset: of the controls at equal bytes, where there are such."""
    if controls:
        return max(((one["name"], fmean(one["accuracies"])) for one in controls), key=lambda one: one[1])
    best = best_of(pairs)
    return None if best is None else (best.name, best.accuracy)


def _print_table(title: str, pairs: Sequence[Pair], loss: str) -> None:
    header, lines = table(pairs, loss)
    shown_as = Table(*(Column(name, no_wrap=True) for name in header), title=title, title_justify="left")
    for line in lines:
        shown_as.add_row(*line)
    console = terminal()
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    console.print(shown_as)


def _predicted(predicted: Mapping[str, Any]) -> list[str]:
    """What the distillation takes, as far as it was measured."""
    lines, steps, num = [], predicted["seconds_per_step"], predicted["num_outer_steps"]
    if steps:
        low, high = (duration(num * value) for value in (min(steps), max(steps)))
        span = f"about {low}" if low == high else f"{low} to {high}"
        lines.append(
            f"predicted: {span} for {num} outer steps, as measured here now; scores and the report come on top"
        )
    else:
        lines.append("predicted: nothing, the first outer steps could not be made")
    if predicted["missing"]:
        missing, seconds = predicted["missing"], predicted["seconds_missing"]
        took = "" if seconds is None else f", about {duration(seconds)} of one process"
        lines.append(f"           and before them, {predicted['stage']}: {missing:g} still to be made{took}")
    return lines


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _of_a_sweep(folder: Path, overrides: Sequence[str]) -> int:
    """The pairs that the trials of a sweep are: final loss and score, of equal size and outer step."""
    if overrides:
        raise ConfigError(overrides[0], "a sweep's folder takes no settings: its trials are what they are")
    if not is_sweep(folder):
        fix = "distributed-dd tune SWEEP_FILE makes one; runs are configurations: distributed-dd diagnose FILE"
        raise MissingInputError(str(folder), "is not the folder of a sweep with a report", fix=fix)
    say = ConsoleProgress().say
    loss, levels = levels_of(folder, words_by_kind(), say)
    for level in levels:
        _print_table(level.title, level.pairs, loss)
    for level in levels:
        say(f"{level.title}: {read(level.pairs).line('trials')}")
    say("note: trials differ in settings too; where these change what the loss measures, its values are not comparable")
    to = folder / "diagnosis"
    write_bytes(to / "diagnosis.png", diagnosis_png({level.title: level.pairs for level in levels}, loss))
    values = [
        {
            "images_per_class": level.images_per_class,
            "outer_step": level.outer_step,
            "pairs": [as_values(pair) for pair in level.pairs],
            "reading": read(level.pairs).as_json(),
        }
        for level in levels
    ]
    write_json(to / "diagnosis.json", {"schema": 1, "loss": loss, "levels": values})
    say(f"output:   {shown(to.absolute() / 'diagnosis.json')}")
    return 0
