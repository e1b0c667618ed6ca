"""The experts as what runs share: trained once, found again in their store."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from distributed_dd.data.material import identity_of_data
from distributed_dd.errors import ConfigError, MissingInputError
from distributed_dd.evaluation import exporting
from distributed_dd.learning.chance import generator
from distributed_dd.learning.networks import initialised
from distributed_dd.methods.trajectory_matching import experts as stage
from distributed_dd.methods.trajectory_matching.expert import ExpertJob, Experts
from distributed_dd.methods.trajectory_matching.jury import Jury
from distributed_dd.methods.trajectory_matching.views import VIEWS, Seeing, early, hardness, view
from distributed_dd.outer.ports import Cluster, Progress
from distributed_dd.outer.prelude import Crew, Listing, Made, Prelude
from distributed_dd.outer.world import World
from distributed_dd.trajectories.store import TrajectoryStore

COLUMNS = ("expert", "train, %", "validation, %", "seconds", "epochs kept", "trained on")


@dataclass
class ExpertsPrelude(Prelude):
    """All experts of a recipe on one data set and network.

    Attributes:
        needed: epochs that must be kept of each.
        named_store: the store, where it does not follow from the rest.
    """

    recipe: Experts
    world: World
    needed: tuple[float, ...] = ()
    named_store: TrajectoryStore | None = None

    stage: ClassVar[str] = "experts"
    tag: ClassVar[str] = "expert_store"
    views: ClassVar[tuple[str, ...]] = VIEWS
    ranks_images: ClassVar[bool] = True

    @staticmethod
    def in_store(
        recipe: Experts, world: World, place: str, digest: str, say: Callable[[str], None]
    ) -> "ExpertsPrelude | None":
        """The experts of a store below ``place``; None, with a note, where they are not all there."""
        experts = ExpertsPrelude(recipe, world, (), TrajectoryStore.below(place, {}, digest))
        if not experts.missing():
            return experts
        say(
            f"note: no experts in {experts.store.folder}, so random real images with soft labels and the scores "
            "that need them are left out (experts=FOLDER says where experts are)"
        )
        return None

    @cached_property
    def store(self) -> TrajectoryStore:
        """Where they lie."""
        if self.named_store is not None:
            return self.named_store
        if self.recipe.store is not None:
            return TrajectoryStore.at(self.recipe.store)
        world = self.world
        root = self.recipe.storage or str(world.output / "experts")
        data = identity_of_data(world.real, world.preprocessing)
        return stage.store_for(root, self.recipe, world.network, data, world.seed)

    @property
    def digest(self) -> str:
        """The digest of the store."""
        return self.store.digest

    def given_digest(self) -> dict[str, Any]:
        """The store, where a person named it."""
        return {} if self.recipe.store is None else {"expert_store": self.store.digest}

    @cached_property
    def jury(self) -> Jury:
        """The stored experts, asked about images."""
        world = self.world
        return Jury(self.store, self.recipe.num_experts, world.network, world.real.train, world.num_classes)

    def make(self, crew: Crew, for_use: bool) -> Made:
        """Train the experts that are missing; those that are to be used are opened and verified."""
        recipe, world, store = self.recipe, self.world, self.store
        trained: list[int] = []
        peak = 0
        if recipe.store is None:
            trained, peak = stage.train_experts(self._job(), crew.cluster, crew.progress)
        else:
            stage.check_complete(store, recipe.num_experts)
        if for_use or recipe.store is not None:
            layers = initialised(world.network, world.image_shape, world.num_classes, generator(0, "layout"))
            num_parameters = sum(p.numel() for p in layers.parameters())
            stage.verify(store, recipe.num_experts, num_parameters, self.needed)
        reused = recipe.num_experts - len(trained)
        crew.progress.say(f"experts: {len(trained)} trained, {reused} reused from {store.folder}")
        if line := stage.summary(store, recipe.num_experts)[0]:
            crew.progress.say(f"experts: {line}")
        return Made(bool(trained), peak)

    def _job(self) -> ExpertJob:
        world, real = self.world, self.world.real
        return ExpertJob(
            recipe=self.recipe,
            network=world.network,
            seed=world.seed,
            train=real.train,
            validation=real.validation,
            num_classes=world.num_classes,
            store=self.store,
            needed=self.needed,
        )

    def missing(self) -> float:
        """How many are still to be trained."""
        return len(self.store.missing(self.recipe.num_experts))

    def seconds_missing(self) -> float | None:
        """As many as are missing, each as long as those that are there took on average."""
        missing, records = self.missing(), self.store.records(self.recipe.num_experts).values()
        known = [record["seconds"] for record in records if "seconds" in record]
        if missing and not known:
            return None
        return missing * sum(known) / max(1, len(known))

    def present(self) -> str:
        """How many are there."""
        num = self.recipe.num_experts
        return f"experts   {num - int(self.missing())} of {num} present in {self.store.folder}"

    def where(self) -> str:
        """The store's folder."""
        return f"experts are in {self.store.folder}"

    def listing(self) -> Listing:
        """What each expert reached."""
        _, records = stage.summary(self.store, self.recipe.num_experts)
        return Listing(COLUMNS, [*map(_line, records)], f"content {self.store.content_sha256[:16]}")

    def view(self, name: str, cluster: Cluster, progress: Progress) -> Tensor:
        """How experts see the training images."""
        return view(name, self._seeing, self.recipe.num_experts, cluster, progress)

    @property
    def _seeing(self) -> Seeing:
        world = self.world
        return Seeing(self.store, world.network, world.real.train, world.num_classes)

    def hardness(self) -> Tensor:
        """EL2N of experts that were trained for a few epochs."""
        return self._hardness

    @cached_property
    def _hardness(self) -> Tensor:
        return hardness(self._seeing, self.recipe.num_experts, early(self.recipe.num_epochs))

    def carried(self) -> TrajectoryStore:
        """The store, which every rank reads itself."""
        return self.store

    def provenance(self) -> dict[str, Any]:
        """The store and the number of experts."""
        return {"store": self.store.digest, "num_experts": self.recipe.num_experts}

    def export(self, form: str, to: Path, progress: Progress) -> None:
        """Replay buffers, as the field's code reads them."""
        if form != "pt":
            raise ConfigError("--as", f"experts cannot be exported as {form!r}", allowed="pt")
        num, world = self.recipe.num_experts, self.world
        if missing := int(self.missing()):
            problem = f"{missing} of {num} experts are missing"
            raise MissingInputError(str(self.store.folder), problem, fix="distributed-dd experts FILE")
        layers = initialised(world.network, world.image_shape, world.num_classes, generator(0, "layout"))
        exporting.experts_as_pt(self.store, num, layers, to, progress)


def _line(record: dict[str, Any]) -> list[str]:
    accuracies = (record.get("train_accuracy"), record.get("validation_accuracy"))
    return [
        str(record["expert"]),
        *("-" if a is None else f"{100 * a:.1f}" for a in accuracies),
        str(record.get("seconds", "-")),
        str(record.get("epochs", "-")),
        str(record.get("device", "-")),
    ]
