"""The outer loop: restore, draw, differentiate, step, track, score, save."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distributed_dd.distillation.methods.trajectory_matching import TrajectoryMatching
from distributed_dd.distillation.student import Student
from distributed_dd.errors import DivergedError
from distributed_dd.stages.material import device
from distributed_dd.stages.ports import Engine, Progress, Tracker
from distributed_dd.stages.run_folder import RunFolder
from distributed_dd.trajectories.store import TrajectoryStore

SKIPPED_IN_A_ROW = 25
LEARNED = ("images", "labels", "learning_rate")
Score = Callable[[dict[str, Tensor]], float]


@dataclass
class Distillation:
    """One run of the outer loop; everything it needs is handed in.

    ``score`` returns the validation accuracy of a set; ``show`` puts a picture of it before people.
    """

    method: TrajectoryMatching
    seed: int
    num_outer_steps: int
    score_every: int
    checkpoint_every: int
    num_experts: int
    student: Student
    store: TrajectoryStore
    engine: Engine
    folder: RunFolder
    tracker: Tracker
    progress: Progress
    score: Score
    show: Callable[[int, dict[str, Tensor]], None]

    def run(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict]:
        """Distil; returns the best set by validation, the last set, and facts about the run."""
        self.average: dict[str, Tensor] | None = self._learned() if self.method.ema_decay else None
        self.best: dict[str, Tensor] = {}
        self.facts = {"best_step": 0, "best_accuracy": -1.0, "skipped": 0, "floored": 0, "seconds": 0.0}
        self.skipped_in_a_row = 0
        step = self._restore()
        started = time.monotonic() - self.facts["seconds"]
        with self.progress.bar("distil", self.num_outer_steps, step) as bar:
            while step < self.num_outer_steps:
                metrics = self._outer_step(step)
                step += 1
                due = step % self.score_every == 0 or step == self.num_outer_steps
                if due:
                    metrics["validation_accuracy"] = self._score(step)
                self.folder.metrics.write(step, metrics)
                self.tracker.metrics(step, metrics)
                if due or step % self.checkpoint_every == 0:
                    self.facts["seconds"] = time.monotonic() - started
                    self._save(step)
                bar.advance(f"matching loss {metrics['matching_loss']:.4f}")
        return self.best, self._current(), dict(self.facts)

    def _outer_step(self, step: int) -> dict[str, float]:
        method, synthetic = self.method, self.engine.synthetic
        draw = method.draw(step, self.seed, self.num_experts, len(synthetic.classes))
        trajectory = self.store.open(draw.expert)
        start = trajectory.checkpoint(draw.start_epoch).to(device())
        target = trajectory.checkpoint(draw.start_epoch + method.expert_epochs).to(device())
        self._renew_labels(target)
        gradient = method.unroll(method.problem(draw, self.student, start, target, synthetic))
        loss = float(gradient.loss)
        if not gradient.is_finite():
            self._diverged(step, loss, draw.expert, draw.start_epoch)
        accepted = method.accepts(loss)
        if accepted:
            self.engine.step(gradient)
            self._keep_rate_positive(step)
            self._update_average()
        self._count_skipped(accepted, step, loss)
        return {
            "matching_loss": loss,
            "student_learning_rate": synthetic.learning_rate.item(),
            "start_epoch": draw.start_epoch,
            "accepted": int(accepted),
            "image_gradient_norm": float(gradient.images.norm()),
        }

    def _count_skipped(self, accepted: bool, step: int, loss: float) -> None:
        self.facts["skipped"] += not accepted
        self.skipped_in_a_row = 0 if accepted else self.skipped_in_a_row + 1
        if self.skipped_in_a_row == SKIPPED_IN_A_ROW:
            self.progress.say(
                f"warning: outer step {step}: the last {SKIPPED_IN_A_ROW} changed nothing, the matching loss "
                f"({loss:.2f}) is above method.gate; lower method.student_learning_rate or raise the gate"
            )

    @torch.no_grad()
    def _renew_labels(self, target: Tensor) -> None:
        synthetic = self.engine.synthetic
        renewed = self.method.labels.renewed(lambda: self.student.logits(target, synthetic.images()))
        if renewed is not None:
            synthetic.labels.copy_(renewed)

    def _diverged(self, step: int, loss: float, expert: int, start_epoch: float) -> None:
        raise DivergedError(
            f"outer step {step} (expert {expert}, start epoch {start_epoch:g})",
            f"the matching loss or its gradient is not finite (loss {loss}); the update was not made",
            allowed="finite numbers",
            fix="lower method.*_optimizer.learning_rate or method.student_learning_rate; the state before "
            f"this step is in {self.folder.checkpoints.folder}",
        )

    @torch.no_grad()
    def _keep_rate_positive(self, step: int) -> None:
        rate, floor = self.engine.synthetic.learning_rate, self.method.student_learning_rate_min
        if bool(rate < floor):  # compared in float32, so that the floor itself passes
            rate.fill_(floor)
            if self.facts["floored"] == 0:
                self.progress.say(
                    f"warning: outer step {step}: the student learning rate fell to its floor {floor:g}; "
                    "lower method.rate_optimizer.learning_rate"
                )
            self.facts["floored"] += 1

    def _update_average(self) -> None:
        if self.average is not None and self.method.ema_decay is not None:
            for name, value in self._learned().items():
                self.average[name].lerp_(value, 1 - self.method.ema_decay)

    def _learned(self) -> dict[str, Tensor]:
        tensors = self.engine.synthetic.tensors()
        return {name: tensors[name] for name in LEARNED}

    def _current(self) -> dict[str, Tensor]:
        """The set that is scored and kept: the average where one is asked for."""
        current = self.engine.synthetic.tensors()
        if self.average is not None:
            current |= {name: value.clone() for name, value in self.average.items()}
        return current

    def _score(self, step: int) -> float:
        current = self._current()
        value = self.score(current)
        if value > self.facts["best_accuracy"]:
            self.best = current
            self.facts |= {"best_step": step, "best_accuracy": value}
        self.progress.say(
            f"outer step {step}: validation accuracy {100 * value:.1f} % (best "
            f"{100 * self.facts['best_accuracy']:.1f} % at {self.facts['best_step']})"
        )
        self.show(step, current)
        return value

    def _save(self, step: int) -> None:
        tensors = {f"set.{name}": t for name, t in self.engine.synthetic.tensors().items()}
        tensors |= {f"engine.{name}": t for name, t in self.engine.state().items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        tensors |= {f"average.{name}": t for name, t in (self.average or {}).items()}
        self.folder.checkpoints.save(step, tensors, self.facts)

    def _restore(self) -> int:
        found = self.folder.checkpoints.load()
        if found is None:
            self.folder.metrics.rewind(0)
            return 0
        tensors, record = found
        self.engine.synthetic.load(_part(tensors, "set."))
        self.engine.load(_part(tensors, "engine."))
        self.best = _part(tensors, "best.")
        if self.average is not None:
            self.average = _part(tensors, "average.")
        self.facts = {name: record[name] for name in self.facts}
        self.folder.metrics.rewind(record["step"])
        self.progress.say(f"going on from outer step {record['step']}")
        return record["step"]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
