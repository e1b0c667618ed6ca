"""One distilled set, many networks: the same rows for each, and scores of robustness."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed_dd.durable import write_text
from distributed_dd.evaluation.protocols import PROTOCOLS, ScoringProtocol, in_words
from distributed_dd.evaluation.report import TITLES
from distributed_dd.evaluation.robustness import scores
from distributed_dd.evaluation.rows import TARGETS, Entry, is_soft, without_augmentation
from distributed_dd.evaluation.scoring import Candidate, score_rows
from distributed_dd.evaluation.settings import Evaluation
from distributed_dd.evaluation.tables import markdown, percent
from distributed_dd.family import choice, choices, plain, setting
from distributed_dd.learning.networks import NETWORKS, Network
from distributed_dd.outer.ports import Cluster, Progress
from distributed_dd.outer.world import World
from distributed_dd.records import owner_of, read_record, seal_of, write_record

SCHEMA = 1
KIND = "cross-architecture evaluation"
FILE = "cross_architecture.json"
SCORES = {"label_robust": "label-robust score", "augmentation_robust": "augmentation-robust score"}


@dataclass(frozen=True, kw_only=True)
class CrossArchitecture:
    """Which networks a set is tried on. Their training follows the recipe that is frozen in the set, or a protocol."""

    networks: tuple[Network, ...] = choices(NETWORKS, "networks to train (empty: that of its run)")
    num_networks: int = setting("fresh networks per row", 5, at_least=1, at_most=10_000)
    full_data: bool = setting("train on all real images too; the label-robust score needs it", True)
    protocol: ScoringProtocol | None = choice(
        PROTOCOLS, "way of scoring (null: that of the run that made the set)", None
    )
    controls: tuple[str, ...] = setting(
        "chosen real images that are scored beside random ones, as in evaluate.controls", Evaluation.controls
    )
    no_augmentation: bool = setting("train without augmentation too, for the augmentation-robust score", True)

    def __post_init__(self) -> None:
        Evaluation(controls=self.controls)  # refuses unknown ones

    def fitted_to(self, world: World) -> World:
        """The world whose recipe trains as many networks as are asked for, by the protocol that is."""
        return replace(world, evaluate=world.evaluate.tried(self.num_networks, self.controls, self.protocol))

    @property
    def file(self) -> str:
        """The record's name, one for each protocol that is asked for."""
        return FILE if self.protocol is None else f"cross_architecture-{PROTOCOLS.kind_of(self.protocol)}.json"

    @property
    def page(self) -> str:
        """The name of the page for people."""
        return str(Path(self.file).with_suffix(".md"))


def cross_evaluate(
    settings: CrossArchitecture,
    entry: Entry,
    rows: list[Candidate],
    cluster: Cluster,
    progress: Progress,
    folder: Path,
) -> dict[str, Any]:
    """Score the rows of a set on every network; ``folder`` keeps what is done, network by network."""
    world = entry.world
    evaluation, material = world.evaluate, world.real
    if not settings.full_data:
        rows = [row for row in rows if row.name != "full_data"]
    if settings.no_augmentation:
        rows += without_augmentation(rows)
    identity = {
        "set_sha256": entry.distilled.manifest["sha256"],
        "recipe": plain(evaluation),
        "rows": [row.name for row in rows],
        "num_test": len(material.splits.test),
        "scored_by": in_words(evaluation.protocol, evaluation.recipe(world.num_classes, len(entry.distilled))),
    }
    result = {
        "schema": SCHEMA,
        **identity,
        "networks": _known(folder / settings.file, seal_of(entry.distilled.manifest), identity),
    }
    soft = is_soft(entry.distilled.labels)
    for network in settings.networks or (world.network,):
        what = {"kind": NETWORKS.kind_of(network), **plain(network)}
        if any(known["network"] == what for known in result["networks"]):
            progress.say(f"{what['kind']}: already evaluated")
            continue
        scored, _ = score_rows(rows, network, evaluation, world.seed, material, cluster, progress)
        by_name = {row["name"]: row.get("accuracies") or row["accuracy_mean"] for row in scored}
        result["networks"].append({"network": what, "rows": scored, "scores": scores(by_name, soft)})
        write_record(folder / settings.file, KIND, seal_of(entry.distilled.manifest), result)
    write_text(folder / settings.page, page(result))
    return result


def _known(path: Path, owner: str, identity: dict[str, Any]) -> list[dict[str, Any]]:
    """What was scored in this way already, of the set with the manifest ``owner``."""
    if not path.exists():
        return []
    record = read_record(path, KIND, needs={"networks": list})
    same = owner_of(record) == owner and all(record.get(key) == value for key, value in identity.items())
    return record["networks"] if same else []


def table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and lines in per cent: a line for each row of the evaluation, a column for each network."""
    entries = result["networks"]
    cells = [{row["name"]: percent(row) for row in entry["rows"]} for entry in entries]
    targets = {row["name"] for entry in entries for row in entry["rows"] if row["labels"] == TARGETS}
    lines = [
        [_title(name) + (", its targets" if name in targets else ""), *(column.get(name, "-") for column in cells)]
        for name in result["rows"]
    ]
    for score, title in SCORES.items():
        values = [entry["scores"].get(score) for entry in entries]
        if any(value is not None for value in values):
            lines.append([title, *("-" if value is None else f"{100 * value:.1f}" for value in values)])
    return ["trained on", *(name_of(entry["network"]) for entry in entries)], lines


def _title(name: str) -> str:
    bare = name.removesuffix("_no_augmentation")
    return TITLES.get(bare, bare) + (", no augmentation" if bare != name else "")


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    header, lines = table(result)
    count = result["recipe"]["num_networks"]
    return (
        f"Test accuracy in %, mean ± standard deviation over {count} fresh networks, "
        f"{result['num_test']} test images.\n{result['scored_by']}\n\n" + markdown(header, lines)
    )


def name_of(network: dict[str, Any]) -> str:
    """A network by its kind and the settings that are not its defaults."""
    default = {"kind": network["kind"], **plain(NETWORKS.members[network["kind"]]())}
    changed = [f"{key}={value}" for key, value in network.items() if default.get(key) != value]
    return " ".join([network["kind"], *changed])
