"""No configuration ends in a traceback, a hang, or a number that makes no sense."""

import collections
import contextlib
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from distributed_dd import config
from distributed_dd.backends.clusters import CLUSTERS
from distributed_dd.cli import main
from distributed_dd.composition import cluster_from, experiment_from
from distributed_dd.errors import ConfigError, MissingInputError, UserError
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.experiment import Experiment, experiment_of, lifted_groups, values_of
from distributed_dd.facets import estimate_lines, scale_of
from distributed_dd.family import MissingError
from distributed_dd.methods import METHODS
from distributed_dd.search.sweep import Sweep
from distributed_dd.sweeps.plan import planned
from tests.conftest import ROOT
from tests.references.fuzzed import broken, broken_texts, damaged, group, member
from tests.references.schema import at_bounds

SHIPPED = [ROOT / f"configs/digits/{name}.yaml" for name in ("datm_ipc1", "generative_ipc10", "dm_ipc1", "dc_ipc1")]
SWEEPS = sorted((ROOT / "configs/tune").glob("digits*.yaml"))
SECONDS_OF_A_HANG = 60
NUM_THROUGH_THE_DOOR = 40

drawn = group(Experiment).flatmap(lambda values: member(METHODS).map(lambda method: {**values, "method": method}))
shipped = st.sampled_from(SHIPPED).map(config.read)
mixed = st.tuples(shipped, group(Experiment)).map(lambda both: {**both[0], **both[1]})
texts = st.tuples(st.one_of(drawn, shipped, mixed).flatmap(damaged), st.none() | broken_texts).map(
    lambda pair: written(*pair)
)


def written(values, damage=None):
    """Values as the text of a file; a text that YAML cannot hold is escaped."""
    text = yaml.safe_dump(values, allow_unicode=False, sort_keys=False)
    return text if damage is None else broken(text, damage)


@contextlib.contextmanager
def alarmed() -> Iterator[None]:
    """A hang becomes a TimeoutError, long after any machine would have been done."""

    def ring(number, frame):
        raise TimeoutError(f"no answer in {SECONDS_OF_A_HANG} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS_OF_A_HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(path) -> str:
    """What becomes of a configuration: "accepted", or the class of the error that explains it.

    An accepted one gives itself back from what a run folder would hold of it, and says what it would cost.
    """
    with alarmed():
        try:
            e = experiment_from(path, [])
            assert experiment_of(values_of(e), of_a_record=True) == e
            config.to_yaml(values_of(e))
            if e.data.facts is not None:
                assert [*estimate_lines(e, scale_of(e, e.data.facts))]
            return "accepted"
        except UserError as error:
            assert error.where and error.problem and len(str(error)) < 10_000
            str(error).encode("utf-8", "backslashreplace")
            return type(error).__name__


def tried(tmp_path_factory, num: int, keep=None) -> collections.Counter:
    """Outcomes of so many configurations; whatever is no outcome is raised."""
    path = tmp_path_factory.mktemp("fuzz") / "configuration.yaml"
    counts: collections.Counter = collections.Counter()

    @settings(
        max_examples=num,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[*HealthCheck],
    )
    @given(texts)
    def one(text):
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        result = outcome(path)
        counts[result] += 1
        if keep is not None:
            keep.append((text, result))

    one()
    return counts


def test_a_sample_of_configurations_is_accepted_or_explained(tmp_path_factory):
    counts = tried(tmp_path_factory, 60)
    assert counts["accepted"] >= 3 and counts["ConfigError"] >= 20, counts


@pytest.mark.slow
def test_a_thousand_configurations_are_accepted_or_explained(tmp_path_factory, capsys):
    kept: list[tuple[str, str]] = []
    counts = tried(tmp_path_factory, 1000, kept)
    folder = tmp_path_factory.mktemp("door")
    codes: collections.Counter = collections.Counter()
    for number, (text, _) in enumerate(kept[:: max(1, len(kept) // NUM_THROUGH_THE_DOOR)]):
        path = folder / f"{number}.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        done = through_the_door(folder, "show", path)
        assert "Traceback" not in done.stderr and done.returncode in (0, 2, 3, 5), (text, done.stderr)
        codes[done.returncode] += 1
    with capsys.disabled():
        print(f"\n0 tracebacks and 0 hangs of {counts.total():,} configurations: {dict(counts)};", end=" ")
        print(f"{codes.total()} through the command line, by exit code: {dict(codes)}")
    assert counts.total() >= 1000 and codes.total() >= NUM_THROUGH_THE_DOOR


def through_the_door(folder, *words):
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "distributed_dd", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=240,
    )


def bomb(first, name, entry, many):
    """A file of a few lines, each of which is nine of the line before."""
    lines = [first]
    for number in range(1, 12):
        lines.append(f"a{number}: " + name.format(number) + many(entry.format(number - 1)))
    return "\n".join(lines)


def listed(entry):
    return "[" + ",".join([entry] * 9) + "]"


NINE = "[x,x,x,x,x,x,x,x,x]"
ALIAS_BOMB = bomb(f"a0: &a0 {NINE}", "&a{} ", "*a{}", listed)
INTERPOLATION_BOMB = bomb(f"a0: {NINE}", "", "'${{a{}}}'", listed)
TEXT_BOMB = bomb("a0: xxxxxxxxx", "", "${{a{}}}", lambda entry: f"'{entry * 9}'")
TEXTS = {
    "a number": "42",
    "a list": "- 1\n- 2",
    "a word": "word",
    "a tag": "a: !!python/object/apply:os.system [true]",
    "an unknown tag": "a: !mine 3",
    "an alias bomb": ALIAS_BOMB,
    "a bomb of interpolations": INTERPOLATION_BOMB,
    "a bomb of oc.select": INTERPOLATION_BOMB.replace("${", "${oc.select:"),
    "a bomb of texts": TEXT_BOMB,
    "an alias in itself": "a: &a [*a]",
    "deep lists": "a: " + "[" * 1000 + "]" * 1000,
    "deep groups": "a: " + "{b: " * 1000 + "1" + "}" * 1000,
    "deep blocks": "".join(" " * i + "a:\n" for i in range(1000)),
    "a number as a key": "1: x",
    "null as a key": "null: x",
    "true as a key": "true: x",
    "a list as a key": "? [a]\n: 1",
    "a key twice": "seed: 1\nseed: 2",
    "NUL": 'output: "a\\0b"',
    "a loop of interpolations": "seed: ${a}\na: ${seed}",
    "a chain of interpolations": "".join(f"a{i}: ${{a{i + 1}}}\n" for i in range(900)) + "a900: 1",
    "itself": "a: {b: '${a}'}",
    "no such variable": "output: ${oc.env:NOT_SET_ANYWHERE}",
    "no such resolver": "output: ${nope:1}",
    "half a list decoded": "output: ${oc.decode:'[1'}",
    "half an interpolation": "output: '${'",
    "what is missing": "seed: ???",
    "thousands of digits": "seed: " + "9" * 5000,
    "a date": "seed: 2020-01-01",
    "bytes": "output: !!binary aGVsbG8=",
    "a set": "output: !!set {x, y}",
    "two documents": "seed: 1\n---\nseed: 2",
    "UTF-16": "seed: 1".encode("utf-16"),
    "no text": bytes(range(256)),
    "ten megabytes": "output: " + "x" * 10_000_000,
    "many keys": "".join(f"k{i}: {i}\n" for i in range(50_000)),
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in TEXTS.items()])
@pytest.mark.parametrize("kind", ["configuration", "cluster", "sweep", "base"])
def test_a_file_that_is_none_is_one_error(text, kind, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        f"base: {path}\nimages_per_class: [1]\nnum_trials: 2\nspace: {{seed: {{kind: choice, values: [1, 2]}}}}"
    )
    reader = {
        "configuration": lambda: experiment_from(path, []),
        "cluster": lambda: cluster_from(path),
        "sweep": lambda: planned(path, []),
        "base": lambda: planned(sweep, []),
    }[kind]
    with alarmed(), pytest.raises(ConfigError) as caught:
        reader()
    assert caught.value.where and len(str(caught.value)) < 10_000


@pytest.mark.parametrize("text", ["", "# nothing\n", "null\n", "---\n", "\ufeff"])
def test_an_empty_file_lacks_everything(text, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="images_per_class: missing"):
        experiment_from(path, [])
    with pytest.raises(ConfigError, match="kind: missing"):
        cluster_from(path)


@pytest.mark.parametrize("way", ["folder", "pipe", "dangling", "loop", "device", "long", "NUL", "half a character"])
def test_a_path_that_is_no_file_is_one_error(way, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names = {"folder": ".", "device": "/dev/zero", "long": "x" * 5000, "NUL": "a\0b", "half a character": "\ud800"}
    with alarmed(), pytest.raises((ConfigError, MissingInputError)) as caught:
        config.read(tmp_path / names.get(way, way))
    assert caught.value.where


def test_a_file_that_may_not_be_read_is_one_error(tmp_path, monkeypatch):
    """Simulated: tests may run as a user who may read everything."""
    path = tmp_path / "file.yaml"
    path.write_text("seed: 1")

    def refused(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refused)
    with pytest.raises(ConfigError, match="Permission denied"):
        config.read(path)


WRONG_OVERRIDES = [
    *["=", "=1", "a", "--seed=3", "+seed=1", "~seed", "seed..x=1", ".seed=1", "seed.=1", "seed[0]=1", "a b=1", "a\0=1"],
    *["seed=[", "seed={", "seed='", "seed=\0", "seed=\ud800", "seed=@", "seed=&a [*a]", "seed=!!python/object:x y"],
    *["seed=" + "[" * 2000, "seed=" + "9" * 5000, "seed=${nothing}", "seed=${seed}", "seed=${", "seed=???", "x" * 5000],
    *["seed.x=1", "method=3", "method.kind=[]", "method.kind={}", "method=[]", "evaluate=0", "evaluate=false"],
    *["evaluate=[]", "evaluate=''", "experts=0", "experts=[]", "network=null", "data=digits.x"],
    *[".".join(["a"] * 1000) + "=1", "method.batch_size=true", "seed=1.0", "seed=1e3", "seed=-1", "output=''"],
    *["output=s3://bucket/runs", "output=$HOME", "experts.storage=$HOME/x", "output=~nobody_of_this_name"],
    *["method.gate=.nan", "method.image_optimizer.learning_rate=.inf", "method.image_optimizer.momentum=1"],
    *["experts.trajectory.keep_epochs=0-99999999999", "experts.trajectory.keep_epochs=" + "9" * 400],
    *["method.start.epoch=-999", "method.labels.epoch=31", "method.segments.step=1e-6", "method.segments.step=1e-300"],
]


@pytest.mark.parametrize(
    "override", WRONG_OVERRIDES, ids=lambda override: override[:30].encode("unicode_escape").decode()
)
def test_a_wrong_override_is_one_error(override):
    with alarmed(), pytest.raises(ConfigError) as caught:
        experiment_from(SHIPPED[0], [override])
    assert caught.value.where and len(str(caught.value)) < 10_000


def test_an_empty_group_is_that_of_the_defaults():
    """As somebody writes it who deletes the last line below "evaluate:"."""
    for override in ("evaluate=null", "evaluate="):
        assert experiment_from(SHIPPED[0], [override]).evaluate == Evaluation()


RATE = "method.student_learning_rate"
SPACES = {
    "a number": 3,
    "a list": [1],
    "empty": {},
    "a name": "seed",
    "no dimension": {RATE: 3},
    "no kind": {RATE: {"low": 1, "high": 2}},
    "kind of no text": {RATE: {"kind": []}},
    "unknown kind": {RATE: {"kind": "normal"}},
    "NaN": {RATE: {"kind": "uniform", "low": float("nan"), "high": 1}},
    "infinity": {RATE: {"kind": "uniform", "low": 0, "high": float("inf")}},
    "no room": {RATE: {"kind": "uniform", "low": 1, "high": 1}},
    "turned round": {RATE: {"kind": "uniform", "low": 2, "high": 1}},
    "the logarithm of nothing": {RATE: {"kind": "log_uniform", "low": 0, "high": 1}},
    "the logarithm of less": {RATE: {"kind": "log_uniform", "low": -1, "high": 1}},
    "so wide that the difference is infinite": {RATE: {"kind": "uniform", "low": -1e308, "high": 1e308}},
    "no choice": {RATE: {"kind": "choice", "values": []}},
    "one choice": {RATE: {"kind": "choice", "values": [1]}},
    "choices of no number": {RATE: {"kind": "choice", "values": [float("nan"), 1]}},
    "choices of no type": {RATE: {"kind": "choice", "values": ["a", "b"]}},
    "choices of several lines": {RATE: {"kind": "choice", "values": ["a\nb", 1]}},
    "a step of nothing": {"method.batch_size": {"kind": "integers", "low": 1, "high": 9, "step": 0}},
    "no field": {"method.nothing": {"kind": "choice", "values": [1, 2]}},
    "an empty name": {"": {"kind": "choice", "values": [1, 2]}},
    "a window elsewhere": {"method.batch_size": {"kind": "matching_window"}},
    "a window of no width": {"method.segments": {"kind": "matching_window", "spacing": 1e-300}},
    "a window without end": {"method.segments": {"kind": "matching_window", "spacing": 1e300}},
    "a window of no kind": {
        "method.segments.kind": {"kind": "choice", "values": ["window", "expanding"]},
        "method.segments": {"kind": "matching_window"},
    },
    "a window among words": {
        "experts.num_epochs": {"kind": "choice", "values": ["a", "b"]},
        "method.segments": {"kind": "matching_window"},
    },
    "two that set one": {
        "method.segments.min_start_epoch": {"kind": "choice", "values": [1, 2]},
        "method.segments": {"kind": "matching_window"},
    },
    "a thousand dimensions": {f"method.x{i}": {"kind": "choice", "values": [1, 2]} for i in range(1000)},
}


def sweep_file(tmp_path, **changes):
    values = {
        "base": str(SHIPPED[0]),
        "images_per_class": [1],
        "num_trials": 4,
        "search": {"kind": "random"},
        **changes,
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(written(values))
    return path


@pytest.mark.parametrize("space", [pytest.param(space, id=name) for name, space in SPACES.items()])
@pytest.mark.parametrize("search", ["random", "grid"])
def test_a_space_that_is_none_is_one_error(space, search, tmp_path):
    with alarmed(), pytest.raises(ConfigError) as caught:
        planned(sweep_file(tmp_path, space=space, search={"kind": search}), [])
    assert caught.value.where and len(str(caught.value)) < 10_000


@pytest.mark.parametrize(
    "space",
    [
        {"seed_of_nothing": None, "method.student_steps": {"kind": "integers", "low": 1, "high": 100_000}},
        {"method.batch_size": {"kind": "integers", "low": 1, "high": 2**51}},
        {
            key: {"kind": "integers", "low": 1, "high": 1000}
            for key in ("method.student_steps", "method.batch_size", "experts.batch_size", "experts.num_experts")
        },
    ],
    ids=["with null", "quadrillions", "a product"],
)
def test_a_grid_is_made_as_far_as_it_is_tried(space, tmp_path):
    """Catches a list of all points, which no memory holds."""
    space = {key: value for key, value in space.items() if value is not None}
    with alarmed():
        plan = planned(sweep_file(tmp_path, space=space, search={"kind": "grid"}), [])
        assert plan.num_trials(1) == 4 and len(plan.points(1)) in (4, 5)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": {"kind": "asha", "num_rungs": 64, "reduction_factor": 1000}},
        {"schedule": {"kind": "to_the_end", "num_rungs": 1000}},
        {"num_trials": 10_000},
        {"max_concurrent": 2**53},
    ],
)
def test_a_budget_at_its_bounds_can_be_planned(changes, tmp_path):
    space = {RATE: {"kind": "log_uniform", "low": 0.01, "high": 0.1}}
    with alarmed():
        plan = planned(sweep_file(tmp_path, space=space, **changes), [])
        rungs = plan.sweep.rungs(plan.bases[1].num_outer_steps)
    assert rungs[-1] == plan.bases[1].num_outer_steps and len(plan.sweep.networks(len(rungs))) == len(rungs)


fuzzed_sweeps = st.tuples(
    st.one_of(
        st.sampled_from(SWEEPS).map(lambda file: {**config.read(file), "base": str(SHIPPED[0])}), group(Sweep)
    ).flatmap(damaged),
    st.none() | broken_texts,
).map(lambda pair: written(*pair))
fuzzed_clusters = st.tuples(member(CLUSTERS).flatmap(damaged), st.none() | broken_texts).map(
    lambda pair: written(*pair)
)


@pytest.mark.parametrize(("kind", "num"), [("sweep", 30), ("cluster", 60)])
def test_a_sample_of_sweeps_and_clusters_is_accepted_or_explained(kind, num, tmp_path_factory):
    path = tmp_path_factory.mktemp(kind) / "file.yaml"
    reader = {"sweep": lambda: planned(path, []), "cluster": lambda: cluster_from(path)}[kind]

    @settings(max_examples=num, derandomize=True, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(fuzzed_sweeps if kind == "sweep" else fuzzed_clusters)
    def one(text):
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        with alarmed(), contextlib.suppress(UserError):
            reader()

    one()


@contextlib.contextmanager
def memory_of(num_bytes: int) -> Iterator[None]:
    """So much more memory, and a MemoryError beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_number_at_its_bounds_is_estimated_or_refused(file):
    """Catches what is made as large as a number says before anybody asked whether it can be."""
    values = config.read(file)
    lifted = {key: values.pop(key) for key in [*values] if key in lifted_groups()}
    values["method"] = {**values["method"], **lifted}
    num = 0
    for path, changed in at_bounds(Experiment, values, fixed=("method", "data")):
        with alarmed(), memory_of(4 * 2**30):
            try:
                e = experiment_of(changed)
                assert [*estimate_lines(e, scale_of(e, e.data.facts))]
            except UserError as error:
                assert error.where and error.problem
            except Exception as error:
                raise AssertionError(path) from error
        num += 1
    assert num > 100


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"kind": "mlp", "width": 65_536, "depth": 1000}, "GiB"),
        ({"kind": "convnet", "width": 65_536, "depth": 100, "pooling": "none"}, "GiB"),
        ({"kind": "alexnet", "stride": 2}, "cannot take images of 1x8x8"),
        ({"kind": "convnet", "depth": 9}, "halve 8x8 images to nothing"),
    ],
)
def test_a_network_that_cannot_be_is_refused_before_it_is_made(network, says):
    e = experiment_from(SHIPPED[2], [])
    e = experiment_of({**values_of(e), "network": network})
    with alarmed(), memory_of(2**30), pytest.raises(ConfigError, match=says):
        list(estimate_lines(e, scale_of(e, e.data.facts)))


def test_keys_that_are_missing_are_named_together_with_what_is_usual(tmp_path, capsys):
    path = tmp_path / "few.yaml"
    path.write_text("data: {kind: folder}\nmethod: {kind: trajectory_matching, segments: {kind: expanding}}\n")
    assert main(["show", str(path)]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("error: images_per_class: missing: ") and "(usual: 1, 10 or 50)" in error
    for key in ("num_outer_steps", "data.path", "method.segments.max_start_epoch", "method.segments.expansion_steps"):
        assert f"{key}, " in error
    assert error.lower().count("missing") == 2


def test_an_error_of_missing_keys_travels_between_processes():
    with pytest.raises(MissingError) as caught:
        experiment_of({"data": {"kind": "digits"}})
    assert len(caught.value.missing) == 3
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
