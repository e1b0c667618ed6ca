"""Which runs become one point of a picture, and how far its bar reaches."""

from pathlib import Path
from statistics import mean, stdev

import pytest

from distributed_dd.evaluation.comparison import Finished
from distributed_dd.evaluation.plots import label_of
from distributed_dd.evaluation.pooled import lines_of
from distributed_dd.evaluation.scoring import row


def run_of(name, accuracies, configuration=None, per_class=10, method="datm", data="a" * 64):
    """A finished run as it is read from its files."""
    rows = [row("distilled", "convnet", "soft", accuracies), row("random_real", "convnet", "hard", [0.3])]
    report = {"dataset": "cifar10", "method": method, "kind": "k", "images_per_class": per_class, "rows": rows}
    run = Finished(Path(name), report)
    manifest = {"configuration": configuration, "dataset": {"sha256": data}} if configuration is not None else {}
    run.__dict__["_manifest"] = manifest
    return run


def values(seed=0, **method):
    return {"seed": seed, "images_per_class": 10, "method": {"kind": "k", "rate": 1, **method}}


def summary(lines):
    """(differences) -> [(size, mean, number of networks and of runs)]."""
    return {
        line.differences: [
            (point.images_per_class, round(point.mean, 6), point.num_networks, point.num_runs)
            for point in line.points("distilled")
        ]
        for line in lines
    }


def test_runs_of_other_settings_are_lines_of_their_own():
    """Catches the mean over a good and a bad configuration, which no run ever had."""
    runs = [run_of("r-1", [0.5, 0.5], values()), run_of("r-2", [0.9, 0.9], values(rate=2))]
    assert summary(lines_of(runs)) == {("method.rate=1",): [(10, 0.5, 2, 1)], ("method.rate=2",): [(10, 0.9, 2, 1)]}


def test_seeds_are_one_point_with_the_spread_over_all_networks():
    """Catches the mean of the runs' spreads, which hides that seeds differ, and a mean that weighs runs alike."""
    seeds = {0: [0.50, 0.52], 1: [0.61, 0.60, 0.65], 2: [0.4]}
    runs = [run_of(f"r-{seed}", accuracies, values(seed)) for seed, accuracies in seeds.items()]
    (line,) = lines_of(runs)
    (point,) = line.points("distilled")
    everything = [accuracy for accuracies in seeds.values() for accuracy in accuracies]
    assert point.mean == pytest.approx(mean(everything)) and point.std == pytest.approx(stdev(everything))
    assert (point.num_networks, point.num_runs, line.differences) == (6, 3, ())
    assert label_of(line, "distilled", [point]) == "datm, distilled, 3 seeds"


def test_the_spread_of_one_network_is_unknown():
    (line,) = lines_of([run_of("r-1", [0.5], values())])
    assert [point.std for point in line.points("distilled")] == [None]
    assert line.points("full_data") == []


def test_a_setting_that_changes_with_the_size_alone_breaks_no_line():
    """As in published settings, where each size has its own."""
    runs = [run_of("r-1", [0.4], values(rate=1), 1), run_of("r-2", [0.6], values(rate=5), 10)]
    assert summary(lines_of(runs)) == {(): [(1, 0.4, 1, 1), (10, 0.6, 1, 1)]}


def test_a_setting_that_differs_at_one_size_parts_the_line_at_all():
    runs = [
        run_of("r-1", [0.4], values(rate=1), 1),
        run_of("r-2", [0.6], values(rate=1), 10),
        run_of("r-3", [0.7], values(rate=2), 10),
        run_of("r-4", [0.8], values(rate=2, gate=3), 50),
    ]
    assert summary(lines_of(runs)) == {
        ("method.rate=1",): [(1, 0.4, 1, 1), (10, 0.6, 1, 1)],
        ("method.rate=2",): [(10, 0.7, 1, 1), (50, 0.8, 1, 1)],
    }


def test_seeds_of_each_of_two_settings_are_pooled_apart():
    runs = [run_of(f"r-{r}{s}", [r / 10], values(s, rate=r)) for r in (1, 2) for s in (0, 1)]
    assert summary(lines_of(runs)) == {
        ("method.rate=1",): [(10, 0.1, 2, 2)],
        ("method.rate=2",): [(10, 0.2, 2, 2)],
    }


def test_a_setting_that_one_run_lacks_is_a_difference():
    runs = [run_of("r-1", [0.5], values()), run_of("r-2", [0.7], values(gate=1))]
    assert [line.differences for line in lines_of(runs)] == [(), ("method.gate=1",)]


def test_a_copy_of_a_run_counts_once():
    runs = [run_of(f"{place}/r-1", [0.5, 0.6], values()) for place in ("here", "there")]
    assert summary(lines_of(runs)) == {(): [(10, 0.55, 2, 1)]}


def test_other_data_under_one_name_are_another_line():
    runs = [run_of(f"r-{letter}", [0.5], values(), data=letter * 64) for letter in "ab"]
    assert [line.differences for line in lines_of(runs)] == [("data_sha256=aaaaaaaa",), ("data_sha256=bbbbbbbb",)]


def test_runs_that_do_not_say_their_settings_stand_alone():
    runs = [run_of("one", [0.5]), run_of("two", [0.7])]
    assert summary(lines_of(runs)) == {("run=one",): [(10, 0.5, 1, 1)], ("run=two",): [(10, 0.7, 1, 1)]}


def test_of_many_differences_the_legend_says_the_digests_of_the_runs():
    many = {f"field_{n}": 1 for n in range(4)}
    runs = [run_of("d-aaaa", [0.5], values()), run_of("d-bbbb", [0.6], values(**many))]
    runs.append(run_of("d-cccc", [0.7], values(1, **many)))
    assert summary(lines_of(runs)) == {(): [(10, 0.5, 1, 1)], ("bbbb, cccc",): [(10, 0.65, 2, 2)]}


def test_methods_are_never_one_line():
    runs = [run_of("r-1", [0.5], values()), run_of("r-2", [0.7], values(), method="mtt")]
    assert [(line.method, line.points("distilled")[0].mean) for line in lines_of(runs)] == [("datm", 0.5), ("mtt", 0.7)]
