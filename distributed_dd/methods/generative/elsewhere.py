"""One generator, many set sizes and networks: both protocols beside controls."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from distributed_dd.data import Fitted
from distributed_dd.durable import write_text
from distributed_dd.evaluation.controls import controls_of
from distributed_dd.evaluation.cross_architecture import name_of
from distributed_dd.evaluation.elsewhere import Elsewhere, Table
from distributed_dd.evaluation.protocols import PROTOCOLS, ScoringProtocol
from distributed_dd.evaluation.report import titled
from distributed_dd.evaluation.scoring import score_rows
from distributed_dd.evaluation.settings import RULES, Evaluation
from distributed_dd.evaluation.tables import markdown, percent
from distributed_dd.family import build_member, choice, choices, did_you_mean, plain, require, setting
from distributed_dd.learning.networks import NETWORKS, Network
from distributed_dd.methods.generative.artefact import WEIGHTS, Generator, load_generator
from distributed_dd.methods.generative.rows import TITLES, Generated, candidates, with_protocol
from distributed_dd.outer.ports import Cluster, Progress
from distributed_dd.outer.work import size
from distributed_dd.outer.world import World
from distributed_dd.records import owner_of, read_record, seal_of, write_record

SCHEMA = 1
FILE = "generator_evaluation.json"
FULL = "full_data"
KIND = "generator evaluation"


@dataclass(frozen=True, kw_only=True)
class GeneratorEvaluation:
    """Which set sizes and networks a generator is tried on. Training follows the recipe frozen in it."""

    images_per_class: tuple[int, ...] = setting("sizes of sets (empty: the size of its run)", (), at_least=1)
    networks: tuple[Network, ...] = choices(NETWORKS, "networks to train (empty: that of its run)")
    num_networks: int = setting("fresh networks per row", 5, at_least=1, at_most=10_000)
    full_data: bool = setting("train on all real images too, once for each network", True)
    protocol: ScoringProtocol | None = choice(PROTOCOLS, "way of scoring (null: that of the generator's run)", None)
    controls: tuple[str, ...] = setting(
        f"chosen real images that are scored beside random ones: any of {', '.join(RULES)}", Evaluation.controls
    )

    def __post_init__(self) -> None:
        for rule in self.controls:
            require(rule in RULES, "controls", f"unknown {rule!r}{did_you_mean(rule, RULES)}", ", ".join(RULES))

    @property
    def file(self) -> str:
        """The record's name, one for each protocol that is asked for."""
        return FILE if self.protocol is None else f"generator_evaluation-{PROTOCOLS.kind_of(self.protocol)}.json"

    @property
    def page(self) -> str:
        """The name of the page for people."""
        return str(Path(self.file).with_suffix(".md"))

    def fitted_to(self, world: World) -> World:
        """The world whose recipe trains as many networks as are asked for, by the protocol that is."""
        return replace(world, evaluate=world.evaluate.tried(self.num_networks, self.controls, self.protocol))


class GeneratorElsewhere(Elsewhere):
    """A distilled generator."""

    thing: ClassVar[str] = "a generator"
    settings: ClassVar[type] = GeneratorEvaluation
    num_real: ClassVar[int | None] = 1

    def opened(self, folder: Path) -> tuple[dict[str, Any], Fitted]:
        """The generator in a run folder or in its ``generator/``."""
        generator = load_generator(folder)
        return generator.manifest, generator.preprocessing

    def values(self, typed: dict[str, Any]) -> dict[str, Any]:
        """One size may stand without a list."""
        number = typed.get("images_per_class")
        return {**typed, "images_per_class": [number]} if isinstance(number, int) else typed

    def evaluate(
        self, settings: GeneratorEvaluation, world: World, cluster: Cluster, progress: Progress, folder: Path
    ) -> dict[str, Any]:
        """Every size on every network."""
        return evaluate_generator(settings, load_generator(folder), world, cluster, progress, folder)

    def page(self, settings: GeneratorEvaluation) -> str:
        """One for each protocol that is asked for."""
        return settings.page

    def sizes(self, settings: GeneratorEvaluation, manifest: dict[str, Any]) -> Sequence[int]:
        """As many as were asked for, or as its run had."""
        return settings.images_per_class or super().sizes(settings, manifest)

    def table(self, result: dict[str, Any]) -> Table:
        """A line a size and row, a column a network."""
        return table(result)

    def rows(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        """As they were scored, with the size."""
        return [
            {"images_per_class": entry["images_per_class"], **row, "network": name_of(entry["network"])}
            for entry in result["entries"]
            for row in entry["rows"]
        ]


def evaluate_generator(
    settings: GeneratorEvaluation,
    generator: Generator,
    world: World,
    cluster: Cluster,
    progress: Progress,
    folder: Path,
) -> dict[str, Any]:
    """Score the generator at every size on every network; ``folder`` keeps what is done, entry by entry."""
    world = settings.fitted_to(world)
    evaluation, seed, material = world.evaluate, world.seed, world.real
    identity = {
        "generator_sha256": generator.manifest["sha256"][WEIGHTS],
        "recipe": plain(evaluation),
        "seed": seed,
        "num_test": len(material.splits.test),
        "storage_bytes": generator.num_bytes,
    }
    result = {
        "schema": SCHEMA,
        **identity,
        "entries": _known(folder / settings.file, seal_of(generator.manifest), identity),
    }
    sizes = settings.images_per_class or (generator.manifest["images_per_class"],)
    own = build_member(NETWORKS, generator.manifest["network"], "network")
    for network in settings.networks or (own,):
        for number in sizes:
            what = {"kind": NETWORKS.kind_of(network), **plain(network)}
            full = settings.full_data and not _has(result["entries"], what, FULL)
            done = any(e["network"] == what and e["images_per_class"] == number for e in result["entries"])
            if done and not full:
                progress.say(f"{what['kind']}, {number} per class: already evaluated")
                continue
            sample = generator.sample(number, seed)
            entry = Generated(
                source=generator.source(number, seed),
                last=None,
                frozen={"images": sample.images},
                images_per_class=number,
                seed=seed,
                coresets=controls_of(world, cluster, progress, number),
            )
            rows = [row for row in candidates(entry, material, evaluation) if row.name != FULL or full]
            rows = [row for row in rows if row.name == FULL or not done]
            scored, _ = score_rows(rows, network, evaluation, seed, material, cluster, progress)
            count = number * generator.num_classes
            num_epochs = evaluation.recipe(generator.num_classes, count).num_epochs
            result["entries"].append(
                {
                    "images_per_class": number,
                    "network": what,
                    "set_bytes": sample.images.nbytes,
                    "rows": [with_protocol(row, count, num_epochs) for row in scored],
                }
            )
            write_record(folder / settings.file, KIND, seal_of(generator.manifest), result)
    write_text(folder / settings.page, page(result))
    return result


def _has(entries: Iterable[dict[str, Any]], network: dict[str, Any], name: str) -> bool:
    return any(row["name"] == name for e in entries if e["network"] == network for row in e["rows"])


def _known(path: Path, owner: str, identity: dict[str, Any]) -> list[dict[str, Any]]:
    """What was scored in this way already, of the generator with the manifest ``owner``."""
    if not path.exists():
        return []
    record = read_record(path, KIND, needs={"entries": list})
    same = owner_of(record) == owner and all(record.get(key) == value for key, value in identity.items())
    return record["entries"] if same else []


def table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and lines in per cent: a line for each size and row, a column for each network."""
    networks = list({str(e["network"]): e["network"] for e in result["entries"]}.values())
    cells: dict[tuple[str, str], dict[str, str]] = {}
    order: dict[tuple[int, str], tuple[str, str]] = {}
    for entry in sorted(result["entries"], key=lambda entry: entry["images_per_class"]):
        for row in entry["rows"]:
            per_class = "all" if row["name"] == FULL else str(entry["images_per_class"])
            key = (per_class, titled(row["name"], TITLES))
            order.setdefault(
                (10**9 if per_class == "all" else entry["images_per_class"], titled(row["name"], TITLES)), key
            )
            cells.setdefault(key, {})[str(entry["network"])] = percent(row)
    places = sorted(order, key=lambda place: place[0])
    lines = [[*order[place], *(cells[order[place]].get(str(network), "-") for network in networks)] for place in places]
    return ["per class", "trained on", *map(name_of, networks)], lines


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    header, lines = table(result)
    text = markdown(header, lines)
    count, protocol = result["recipe"]["num_networks"], result["recipe"]["protocol"]["kind"]
    sets = {e["images_per_class"]: e["set_bytes"] for e in result["entries"]}
    told_sets = ", ".join(f"{size(value)} at {number} per class" for number, value in sorted(sets.items()))
    return (
        f"Test accuracy in %, mean ± standard deviation over {count} fresh networks, "
        f"{result['num_test']} test images. Protocol: {protocol}.\n\n{text}\n"
        f"Storage: the generator takes {size(result['storage_bytes'])}, a frozen set {told_sets} (float32).\n"
    )
