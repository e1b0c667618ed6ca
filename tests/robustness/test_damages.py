"""Files of runs that are damaged or exchanged, and what every verb makes of them: an error that says where, a line
that says what was done about it, or the same result. Never another result without a word, nor a traceback."""

import contextlib
import io
import json
import os
import random
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import distributed_dd
from distributed_dd.cli import main
from distributed_dd.durable import sha256_of
from distributed_dd.errors import UserError
from distributed_dd.outer.loop import Distillation
from tests.conftest import ROOT, tiny_gan_text, tiny_text
from tests.references.damages import Damage, damages_of

HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
FAST, ALL, LONGEST_LINE = 12, 520, 200
FOR_PEOPLE = (".lock", ".png", ".md", ".txt", ".yaml", "environment.json", ".db")
"""Endings of files that nothing is computed from; runs write them anew, and no verb reads a result in them."""
OTHER = "student_steps: 2"
"""Of the second run in the world, whose files get into the place of the first one's."""
SMALL = ["networks=[mlp]", "num_networks=1", "full_data=false"]


@dataclass(frozen=True)
class World:
    """Runs as they are found on a disk: ``whole`` has two finished ones and a GAN's, ``cut`` one that was stopped."""

    folder: Path

    @property
    def run(self) -> Path:
        return self._one("digits-datm-*")

    @property
    def gan(self) -> Path:
        return self._one("digits-generative-*", "gan")

    def _one(self, pattern: str, below: str = "runs") -> Path:
        found = sorted((self.folder / below).glob(pattern))
        return next(path for path in found if OTHER not in (path / "resolved.yaml").read_text())

    @property
    def tiny(self) -> list[str]:
        return [str(self.folder / "tiny.yaml"), f"output={self.folder / 'runs'}", *HERE]

    @property
    def tiny_gan(self) -> list[str]:
        return [str(self.folder / "tiny_gan.yaml"), f"output={self.folder / 'gan'}", *HERE]


def quietly(arguments: list[str]) -> tuple[int, str]:
    """A command's exit code, and all that it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(arguments)
    return code, said.getvalue()


def stopped_after(step: int, command: list[str]) -> None:
    """A command that is interrupted once a checkpoint of ``step`` is there."""
    commit = Distillation._commit

    def stopping(self, reached, shards):
        commit(self, reached, shards)
        if reached >= step:
            raise KeyboardInterrupt

    Distillation._commit = stopping  # type: ignore[method-assign]
    try:
        assert quietly(command)[0] == 130
    finally:
        Distillation._commit = commit  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Folders that no test writes to: whole, and cut."""
    top = tmp_path_factory.mktemp("worlds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTRIBUTED_DD_CACHE", str(top / "cache"))
        made = {}
        for name in ("whole", "cut"):
            folder = top / name
            folder.mkdir()
            (folder / "tiny.yaml").write_text(tiny_text(folder / "runs"))
            (folder / "tiny_gan.yaml").write_text(tiny_gan_text(folder / "gan"))
            made[name] = World(folder)
        whole, cut = made["whole"], made["cut"]
        for more in (["tracker=mlflow"], ["tracker=mlflow", "method.student_steps=2"]):
            assert quietly(["run", *whole.tiny, *more])[0] == 0
        assert quietly(["run", *whole.tiny_gan])[0] == 0
        assert quietly(["evaluate", str(whole.run), *SMALL, *HERE])[0] == 0
        stopped_after(4, ["run", *cut.tiny])
        stopped_after(4, ["run", *cut.tiny_gan])
        yield made


def tensors_of(folder: Path, ending: str = "*.safetensors") -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.glob(ending))}


def rows_of(report: Path) -> Any:
    rows = json.loads(report.read_text())["rows"]
    return [(row["name"], row.get("accuracy_mean"), row.get("accuracy_std")) for row in rows]


def finish(world: World) -> Any:
    """The same line again, of a run and of a GAN's run; what they end with."""
    codes = [quietly(["run", *world.tiny]), quietly(["run", *world.tiny_gan])]
    say(codes)
    return {
        "set": tensors_of(world.run / "distilled"),
        "rows": rows_of(world.run / "report.json"),
        "generator": tensors_of(world.gan / "generator"),
        "generated": rows_of(world.gan / "report.json"),
    }


def evaluate(world: World) -> Any:
    say([quietly(["evaluate", str(world.run), *SMALL, *HERE])])
    table = json.loads((world.run / "cross_architecture.json").read_text())
    return {name: value for name, value in table.items() if name not in ("record", "seconds")}


def compare(world: World) -> Any:
    to = world.folder / "report"
    say([quietly(["report", str(world.folder / "runs"), "--to", str(to)])])
    return (to / "report.csv").read_text()


def export(world: World) -> Any:
    to = world.folder / "exported"
    say([quietly(["export", str(world.run), "--as", "npz", "--to", str(to)])])
    return tensors_of(to, "*.npz")


def sample(world: World) -> Any:
    to = world.folder / "sampled"
    say([quietly(["sample", str(world.gan), "images_per_class=3", "seed=5", "--to", str(to)])])
    return tensors_of(to)


def load(world: World) -> Any:
    """From Python, where an error is an exception."""
    try:
        images = distributed_dd.load_distilled(world.run).images
        fresh = distributed_dd.load_generator(world.gan).sample(2, seed=3)
    except UserError as error:
        say([(error.exit_code, f"error: {error}")])
    return images.sum().item(), images.abs().sum().item(), fresh.images.abs().sum().item()


def tell_mlflow(world: World) -> Any:
    """What a server that never heard of the runs is told."""
    say([quietly(["import", str(world.folder / "runs")])])
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{world.folder / 'runs' / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    told = {}
    for run in client.search_runs(experiments):
        losses = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "matching_loss")]
        told[run.info.run_name] = (run.info.status, sorted(run.data.params.items()), sorted(losses))
    return sorted(told.items())


class Refused(Exception):
    """The verb ended with an error, as it should where it cannot tell right from wrong."""


_SAID: list[str] = []


def say(ended: list[tuple[int, str]]) -> None:
    """Keep what commands said; the first that failed ends the verb."""
    for code, said in ended:
        _SAID.append(said)
        if code:
            assert 1 <= code <= 6 and "error: " in said, said
            assert "Traceback" not in said
            raise Refused(said)


@dataclass(frozen=True)
class Verb:
    """What is done in which world, the files that it reads (patterns), and how often it is drawn."""

    world: str
    act: Callable[[World], Any]
    reads: tuple[str, ...]
    weight: int


GENERATOR = "gan/*/generator/*"
VERBS: dict[str, Verb] = {
    "run, finished": Verb("whole", finish, ("runs/*/*.json*", "runs/*/distilled/*", "gan/*/*.json*", "gan/*/*/*"), 3),
    "run, goes on": Verb("cut", finish, ("*/*/checkpoint/*", "*/*/*.json*", "runs/experts/*/*", "gan/gans/*/*"), 4),
    "evaluate": Verb("whole", evaluate, ("runs/*/distilled/*", "runs/*/scored.jsonl", "runs/*/cross*.json"), 1),
    "report": Verb("whole", compare, ("runs/*/*.json*", "runs/*/distilled/*"), 2),
    "export": Verb("whole", export, ("runs/*/distilled/*",), 2),
    "sample": Verb("whole", sample, (GENERATOR,), 2),
    "load": Verb("whole", load, ("runs/*/distilled/*", GENERATOR), 2),
    "import to MLflow": Verb("whole", tell_mlflow, ("runs/*/*.json*",), 2),
}


@pytest.fixture(scope="module")
def undisturbed(worlds, tmp_path_factory):
    """What every verb gives where nothing is damaged."""
    with pytest.MonkeyPatch.context() as patch:
        results = {}
        for verb, how in VERBS.items():
            copy = copied(worlds[how.world], tmp_path_factory.mktemp("copy") / "world")
            patch.setenv("DISTRIBUTED_DD_CACHE", str(copy.folder / "cache"))
            if verb == "import to MLflow":
                forget_server(copy)
            results[verb] = how.act(copy)
        assert results["run, finished"] == results["run, goes on"], "a run that was stopped ends as one that was not"
        return results


def copied(world: World, to: Path) -> World:
    """A world of its own, which says so in the places that its files name."""
    shutil.copytree(world.folder, to)
    for path in to.rglob("resolved.yaml"):
        path.write_text(path.read_text().replace(str(world.folder), str(to)))
    return World(to)


def forget_server(world: World) -> None:
    for path in (world.folder / "runs").glob("mlflow.db*"):
        path.unlink()


def victims(world: World, patterns: Sequence[str]) -> list[Path]:
    """Files of these patterns that something is computed from."""
    found = {path for pattern in patterns for path in world.folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not path.name.endswith(FOR_PEOPLE))


def stranger_of(path: Path, world: World, rng: random.Random) -> Path:
    """A file of the same kind that belongs elsewhere."""
    kin = [other for other in victims(world, ["**/*"]) if other.suffix == path.suffix and other != path]
    close = [other for other in kin if other.name == path.name] or kin
    return rng.choice(close)


def verdict(worlds, undisturbed, tmp_path: Path, number: int) -> tuple[str, str]:
    """Damage one file, use it by one verb; (what came of it, the story)."""
    rng = random.Random(number)
    verb = rng.choices(list(VERBS), [how.weight for how in VERBS.values()])[0]
    how = VERBS[verb]
    world = copied(worlds[how.world], tmp_path / f"world-{number}")
    os.environ["DISTRIBUTED_DD_CACHE"] = str(world.folder / "cache")
    if verb == "import to MLflow":
        forget_server(world)
    path = rng.choice(victims(world, how.reads))
    damage: Damage = rng.choice(damages_of(path))
    damage(path, stranger_of(path, world, rng), rng)
    story = f"{number}: {verb}, {path.relative_to(world.folder)}, {damage.__name__}"
    _SAID.clear()
    try:
        result = how.act(world)
    except Refused:
        return "refused", story
    except Exception as error:
        trace = "".join(traceback.format_exception(error)[-3:])
        return "a traceback", f"{story}: {trace}"
    finally:
        shutil.rmtree(world.folder, ignore_errors=True)
    if result == undisturbed[verb]:
        return "the same result", story
    said = "\n".join(_SAID)
    told = any(word in said for word in ("warning:", "left out", "aside", "trained again", "not finished"))
    return ("told" if told else "silently wrong"), f"{story}: {result} instead of {undisturbed[verb]}"


@pytest.fixture
def _cache_after(monkeypatch):
    """What the damages do to the environment ends with the test."""
    monkeypatch.setenv("DISTRIBUTED_DD_CACHE", os.environ["DISTRIBUTED_DD_CACHE"])


def of_many(worlds, undisturbed, tmp_path, numbers) -> Counter:
    verdicts: Counter = Counter()
    wrong = []
    for number in numbers:
        what, story = verdict(worlds, undisturbed, tmp_path, number)
        verdicts[what] += 1
        print(f"{what}: {story}"[:LONGEST_LINE], flush=True)
        if what in ("silently wrong", "a traceback"):
            wrong.append(story)
    assert not wrong, "\n".join(wrong)
    return verdicts


def test_some_damages(worlds, undisturbed, tmp_path, _cache_after):
    verdicts = of_many(worlds, undisturbed, tmp_path, range(FAST))
    assert verdicts["refused"] > FAST / 8, "damages that nobody notices would test nothing"


@pytest.mark.slow
def test_many_damages(worlds, undisturbed, tmp_path, _cache_after):
    verdicts = of_many(worlds, undisturbed, tmp_path, range(FAST, ALL))
    print(dict(verdicts))
    assert verdicts["refused"] > 100 and verdicts["told"] > 10
