"""From a configuration to running objects: the one place that names a stage and a backend together."""

import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distributed_dd import __version__, config
from distributed_dd.backends.console import ConsoleProgress
from distributed_dd.backends.in_process_cluster import InProcess
from distributed_dd.backends.local_engine import LocalEngine
from distributed_dd.backends.mlflow_tracker import MlflowTracker, NoTracker
from distributed_dd.backends.ray_cluster import RayCluster
from distributed_dd.data import Images
from distributed_dd.distillation.chance import generator
from distributed_dd.distillation.labels import hard_logits
from distributed_dd.distillation.networks import NETWORKS, initialised
from distributed_dd.distillation.starts import random_per_class
from distributed_dd.distillation.student import Student
from distributed_dd.distillation.synthetic import SyntheticSet
from distributed_dd.durable import locked, read_json, write_bytes, write_json
from distributed_dd.errors import MissingInputError
from distributed_dd.family import Family, build, plain
from distributed_dd.stages import artefact, experts, report, scoring
from distributed_dd.stages.distill import Distillation
from distributed_dd.stages.experiment import Experiment
from distributed_dd.stages.material import Material, device, prepare
from distributed_dd.stages.ports import Cluster, Tracker
from distributed_dd.stages.preview import preview_png
from distributed_dd.stages.run_folder import RunFolder
from distributed_dd.stages.selection import Jury

CLUSTERS = Family("cluster", {"ray": RayCluster, "in_process": InProcess})
PACKAGES = ("torch", "torchvision", "ray", "deepspeed", "mlflow", "omegaconf", "safetensors", "numpy")


def experiment_from(path: Path, overrides: list[str]) -> Experiment:
    """The experiment that a file and overrides describe."""
    return build(Experiment, config.read(path, overrides))


def cluster_from(path: Path | None) -> Cluster:
    """Where tasks run: what the cluster file says, or a local Ray."""
    if path is None:
        return RayCluster()
    values = config.read(path)
    from distributed_dd.family import _member

    return _member(CLUSTERS, values, field(), str(path))


@dataclass
class Run:
    """One experiment in its run folder; stages are called in order, each skips what is done."""

    experiment: Experiment
    cluster: Cluster
    progress: ConsoleProgress = field(default_factory=ConsoleProgress)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        e = self.experiment
        self.folder = RunFolder(Path(e.output) / e.name, e.digest)
        self.material: Material = prepare(e.data, e.preprocessing, e.images_per_class)
        splits = self.material.splits
        self.num_classes = splits.num_classes
        identity = experts.identity_of(self.material, e.preprocessing)
        self.store = experts.store_for(Path(e.output) / "experts", e.experts, e.network, identity, e.seed)
        rng = generator(e.seed, "layout")
        network = initialised(e.network, splits.image_shape, self.num_classes, rng)
        self.student = Student(network, e.method.precision).to(device(), torch.float32)
        self.tracker: Tracker = NoTracker()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the run folder, freeze the configuration into it, and close the tracker however it ends."""
        e, path = self.experiment, self.folder.path
        if e.resume == "never" and (aside := self.folder.set_aside()):
            self.progress.say(f"the previous run was kept as {aside}")
        if e.resume == "must" and not self.folder.checkpoints.latest.exists():
            raise MissingInputError(str(path), "holds no checkpoint, and resume=must", fix="resume=auto")
        with locked(path, "run"):
            self.progress.log_to(self.folder.log)
            resolved = config.to_yaml(plain(e)).encode()
            write_bytes(path / "resolved.yaml", resolved)
            write_json(path / "environment.json", environment())
            self.tracker = self._tracker()
            status = "FAILED"
            try:
                yield
                status = "FINISHED"
            except KeyboardInterrupt:
                status = "KILLED"
                raise
            finally:
                self.tracker.end(status)

    def _tracker(self) -> Tracker:
        e = self.experiment
        if e.tracker == "none":
            return NoTracker()
        tags = {
            "dataset": e.data.name, "method": e.method.name, "images_per_class": str(e.images_per_class),
            "seed": str(e.seed), "data_sha256": self.material.splits.sha256, "run_folder": e.name,
            "config_digest": e.digest, "expert_store": self.store.digest,
        }  # fmt: skip
        return MlflowTracker(
            Path(e.output) / "mlflow.db", self.folder.tracked,
            f"distributed_dd/{e.data.name}/{e.method.name}",
            e.name, dict(_flat(plain(e))), tags, self.progress.say,
        )  # fmt: skip

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record seconds and this process's peak memory of a stage."""
        started = time.monotonic()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        yield
        self.seconds[stage] = round(time.monotonic() - started, 2)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.peak_memory[stage] = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak

    def train_experts(self) -> None:
        """Train the experts that are missing and verify all of them."""
        e = self.experiment
        with self.timed("experts"):
            job = experts.ExpertJob(
                e.experts, e.network, e.seed, self.material.train, self.material.validation, self.num_classes,
                self.store,
            )  # fmt: skip
            trained = experts.train_experts(job, self.cluster, self.progress)
            experts.verify(
                self.store, e.experts.num_experts, self.student.num_parameters, e.experts.num_epochs
            )
        reused = e.experts.num_experts - len(trained)
        self.progress.say(f"experts: {len(trained)} trained, {reused} reused from {self.store.folder}")

    def distill(self) -> None:
        """Distil the set and write the artefact, unless it is there."""
        e = self.experiment
        if (self.folder.distilled / artefact.MANIFEST).exists():
            artefact.load_distilled(self.folder.distilled)  # verifies
            self.progress.say(f"distilled set: already in {self.folder.distilled}")
            return
        with self.timed("distill"):
            synthetic = self._starting_set()
            starting = synthetic.images().cpu()
            engine = LocalEngine(synthetic, e.method.parameter_groups(synthetic))
            contest = self._contest(self.material.validation)
            members = range(e.evaluate.num_validation_networks)

            def score(tensors: dict[str, Tensor]) -> float:
                images, labels, rate = tensors["images"], tensors["labels"], float(tensors["learning_rate"])
                trials = [scoring.Trial(images, labels, rate, 2000 + m) for m in members]
                return sum(scoring.score(trials, contest, self.cluster)) / len(trials)

            def show(step: int, tensors: dict[str, Tensor]) -> None:
                path = self._preview(starting, tensors, f"outer step {step}")
                self.tracker.picture("synthetic_set", step, path)

            best, last, facts = Distillation(
                e.method, e.seed, e.num_outer_steps, e.evaluate.every, e.checkpoint_every,
                e.experts.num_experts, self.student, self.store, engine, self.folder, self.tracker,
                self.progress, score, show,
            ).run()  # fmt: skip
            self._preview(starting, best, f"outer step {facts['best_step']}, chosen on validation")
            artefact.write_artefact(
                self.folder.distilled, best, last, self.material.fitted, self._manifest(facts)
            )

    def _starting_set(self) -> SyntheticSet:
        e, train = self.experiment, self.material.train
        jury = self._jury()
        index = jury.start(e.method.start, e.images_per_class, generator(e.seed, "starting images"))
        labels = jury.labels(e.method.labels)[index]
        targets = train.targets[index]
        rate = e.method.student_learning_rate
        return SyntheticSet(train.images[index], labels, targets, rate).to(device())

    def _jury(self) -> Jury:
        e = self.experiment
        return Jury(self.store, e.experts.num_experts, e.network, self.material.train, self.num_classes)

    def _contest(self, judge: Images) -> scoring.Contest:
        e = self.experiment
        return scoring.Contest(e.network, e.evaluate.recipe(), e.seed, self.num_classes, judge)

    def _preview(self, starting: Tensor, tensors: dict[str, Tensor], title: str) -> Path:
        invert, names = self.material.fitted.invert, self.material.splits.class_names
        png = preview_png(invert(starting), invert(tensors["images"]), tensors["classes"], names, title)
        path = self.folder.distilled / artefact.PREVIEW
        write_bytes(path, png)
        return path

    def _manifest(self, facts: dict) -> dict[str, Any]:
        e, splits = self.experiment, self.material.splits
        values = plain(e)
        return {
            "method": e.method.name,
            "dataset": {"name": splits.name, "sha256": splits.sha256},
            "images_per_class": e.images_per_class,
            "class_names": list(splits.class_names),
            "image_shape": list(splits.image_shape),
            "preprocessing": {
                **values["preprocessing"],
                "apply": "z = (x - mean) * forward; a matrix product if forward is (d, d)",
                "invert": "x = z * inverse + mean, likewise",
                "pixels": "x in [0, 1]",
            },
            "network": values["network"],
            "evaluation": {**values["evaluate"], "learning_rate": "the distilled one"},
            "experts": {"store": self.store.digest, "num_experts": e.experts.num_experts},
            "seed": e.seed,
            "config": e.digest,
            "outer_step": facts["best_step"],
            "validation_accuracy": facts["best_accuracy"],
            "distillation": facts,
            "versions": versions(),
        }

    def evaluate(self) -> dict[str, Any]:
        """Score the set and its controls; the one place that touches the test split."""
        if self.folder.report.exists():
            return read_json(self.folder.report)
        with self.timed("evaluate"):
            rows = self._rows()
        e, manifest = self.experiment, read_json(self.folder.distilled / artefact.MANIFEST)
        self.seconds["distill"] = round(manifest["distillation"]["seconds"], 2)
        result = {
            "schema": report.SCHEMA,
            "method": e.method.name,
            "dataset": e.data.name,
            "images_per_class": e.images_per_class,
            "rows": rows,
            "seconds": {stage: self.seconds[stage] for stage in ("experts", "distill", "evaluate")},
            "peak_memory_bytes": self.peak_memory,
            "best_step": manifest["outer_step"],
            "num_outer_steps": e.num_outer_steps,
            "validation_accuracy": manifest["validation_accuracy"],
            "num_test": len(self.material.splits.test),
        }
        write_bytes(self.folder.report_page, report.page(result).encode())
        write_json(self.folder.report, result)
        self.tracker.summary({f"test_accuracy_{row['name']}": row["accuracy_mean"] for row in rows})
        paths = (self.folder.distilled, self.folder.report, self.folder.report_page)
        for path in (*paths, self.folder.path / "resolved.yaml"):
            self.tracker.artefact(path)
        return result

    def _rows(self) -> list[dict]:
        e = self.experiment
        candidates = self._candidates()
        count = e.evaluate.num_validation_networks
        validation = self._contest(self.material.validation)
        rates = scoring.choose_rates(candidates, count, validation, self.cluster, self.progress)
        # From here on the test split is read, once.
        test, kind = self.material.test, NETWORKS.kind_of(e.network)
        trials, owners = [], []
        for candidate, rate in zip(candidates, rates, strict=True):
            trials += [candidate.trial(member, rate) for member in range(e.evaluate.num_networks)]
            owners += [candidate.name] * e.evaluate.num_networks
        contest = self._contest(test)
        results = scoring.score(trials, contest, self.cluster, self.progress, "evaluate (test)")
        rows = []
        for candidate, rate in zip(candidates, rates, strict=True):
            values = [v for v, owner in zip(results, owners, strict=True) if owner == candidate.name]
            row = scoring.row(candidate.name, kind, candidate.label_kind, values)
            rows.append({**row, "learning_rate": rate})
        expert_values = scoring.expert_accuracies(
            self.store, e.experts.num_experts, e.network, self.num_classes, test
        )
        return [*rows, scoring.row("expert", kind, "hard", expert_values)]

    def _candidates(self) -> list[scoring.Candidate]:
        e, train = self.experiment, self.material.train
        best = artefact.load_distilled(self.folder.distilled)
        last = artefact.load_last_step(self.folder.distilled)
        soft = self._jury().soft_labels(e.method.labels)
        default, distilled = e.evaluate.optimizer.learning_rate, best.learning_rate
        picks = [
            random_per_class(train.targets, e.images_per_class, generator(e.seed, "random real", member))
            for member in range(e.evaluate.num_networks)
        ]
        hard = hard_logits(train.targets, self.num_classes)
        # Controls may take the distilled rate where it serves them better: validation decides.
        either = tuple(dict.fromkeys((default, distilled)))
        make = scoring.Candidate
        return [
            make("distilled", "soft", ((best.images, best.labels),), (distilled,)),
            make("distilled_hard_labels", "hard", ((best.images, best.classes),), either),
            make(
                "distilled_last_step", "soft", ((last["images"], last["labels"]),),
                (float(last["learning_rate"]),),
            ),
            make("random_real", "hard", tuple((train.images[p], hard[p]) for p in picks), either),
            make(
                "random_real_soft_labels", "soft", tuple((train.images[p], soft[p]) for p in picks), either
            ),
            make(
                "full_data", "hard", ((train.images, train.targets),), either,
                e.evaluate.num_epochs_full_data,
            ),
        ]  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of everything that can change a number."""
    found = {"distributed_dd": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def environment() -> dict[str, Any]:
    """What the run ran on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": versions(), "platform": platform.platform(), "processor": _processor(), "gpu": gpu,
        "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(), "command": sys.argv[1:],
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
