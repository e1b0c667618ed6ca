"""Learned tensors under DeepSpeed: ZeRO 0 to 3, any update rules, ready-made gradients."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from distributed_dd.backends.deepspeed.given_gradients import GivenGradients
from distributed_dd.backends.deepspeed.learned_module import LearnedModule
from distributed_dd.backends.deepspeed.process_group import Apart
from distributed_dd.backends.deepspeed.row_spans import RowSpans, Span
from distributed_dd.backends.deepspeed.slots import DeepSpeedSlots
from distributed_dd.backends.deepspeed.zero import Zero, zero_config
from distributed_dd.learning.device import device
from distributed_dd.learning.update_rules import (
    ROWS,
    Total,
    UpdateRule,
    UpdateRules,
    alone,
    is_by_row,
    slot_key,
    squared_norm,
)
from distributed_dd.outer.checkpoint import Saved
from distributed_dd.outer.learner import Held, require_gradients
from distributed_dd.unroll import Ranks


class DeepSpeedLearner:
    """One rank's part of what is learned; needs an initialised process group.

    Rows: at stages 0 to 2 every rank has all and hands in its part of their gradients. At stage 3 it reads
    and hands in only those that it keeps: class blocks are gathered one after the other and freed. With
    ``own_rows`` it has no others.

    Gradients are made outside, as functions of what `read` gave, and handed in ready-made: what
    differentiates twice never runs through DeepSpeed's hooks.
    """

    def __init__(self, zero: Zero, ranks: Ranks, saved: Saved, rules: Mapping[str, UpdateRule]) -> None:
        self._zero, self._ranks, self._rules, names = zero, ranks, dict(rules), saved.names()
        rows = [name for name in rules if is_by_row(name)]
        self._spans = RowSpans.of(saved, zero, ranks.layout) if rows else RowSpans()
        self.num_rows = self._spans.num_rows
        others = [name for name in ROWS if rows and name in names and name not in rules]
        self._unlearned = {
            name: saved.rows(name, *self._spans.read).to(device()) for name in others if name != "classes"
        }
        self._classes = {"classes": saved.rows("classes", *self._spans.kept)} if rows else {}
        flats = {name: saved.value(name).to(device()) for name in rules if name not in rows}
        self._shapes = {name: value.shape for name, value in flats.items()}
        config = zero_config(zero, self._largest(saved, rows, flats))
        self._module = self._learned_module(saved, rows, flats, config)
        self._pieces = {name: self._module.pieces(name) for name in rules}
        self.optimizer = UpdateRules(
            {"params": self._pieces[name], "rule": rule, "name": name, "total": self._total(name)}
            for name, rule in rules.items()
        )
        parallel = Apart() if zero.own_rows else None
        self._engine = _initialised(self._module, self.optimizer, config, parallel)
        numbers = {name: _numbers(saved, names, name, rule) for name, rule in rules.items()}
        self._slots = DeepSpeedSlots(self._engine, zero.stage, ranks.layout, self._pieces, rules, numbers)
        self._load_slots(saved, names)
        self._outputs: tuple[Tensor, ...] = ()

    def _largest(self, saved: Saved, rows: list[str], flats: dict[str, Tensor]) -> int:
        """Numbers in the largest parameter."""
        length = max((last - first for first, last in self._spans.blocks), default=0)
        of_rows = (length * saved.rows(name, 0, 1).numel() for name in rows)
        return max(chain(of_rows, (value.numel() for value in flats.values())))

    def _learned_module(
        self, saved: Saved, rows: list[str], flats: dict[str, Tensor], config: dict[str, Any]
    ) -> LearnedModule:
        import deepspeed

        # Under Init a block is cut to this rank's part as soon as it is made: no rank ever has the whole set.
        context = deepspeed.zero.Init(config_dict_or_path=config) if self._zero.stage == 3 else nullcontext()

        def blocks() -> Iterator[list[Tensor]]:
            for block in self._spans.blocks:
                yield [saved.rows(name, *block).to(device()) for name in rows]

        with context:
            return LearnedModule(rows, blocks(), {name: value.reshape(-1) for name, value in flats.items()})

    def _total(self, name: str) -> Total:
        """What sums over the ranks that hold other numbers of a tensor than this one."""
        cut = self._zero.stage > 0 or (self._zero.own_rows and is_by_row(name))
        return self._summed if cut else alone

    def _summed(self, part: Tensor) -> Tensor:
        # Offloaded, a part is in the host's memory, where ranks with GPUs cannot sum.
        return self._ranks.sum(part.to(device())).to(part.device)

    def read(self) -> Held:
        """All rows, or where the set is parted those that this rank keeps; and flat tensors, whole."""
        if not self.num_rows:
            return Held(0, self._gathered())
        self._outputs = self._forward(self._spans.read)
        learned = self._named(output.detach() for output in self._outputs)
        return Held(self._spans.read[0], learned | self._unlearned)

    @torch.no_grad()
    def _gathered(self) -> dict[str, Tensor]:
        """Flat tensors, copied without a forward pass: they are also read where they are not updated."""
        import deepspeed

        pieces = [self._pieces[name][0] for name in self._module.names]
        cut = self._zero.stage == 3
        with deepspeed.zero.GatheredParameters(pieces) if cut else nullcontext():
            return self._named(piece.detach().clone() for piece in pieces)

    def _forward(self, span: Span) -> tuple[Tensor, ...]:
        return self._engine(*self._spans.in_module(span))

    def _named(self, outputs: Any) -> dict[str, Tensor]:
        """What the module gave, by name and in the shapes of the checkpoint."""
        named = dict(zip(self._module.names, outputs, strict=True))
        return named | {name: named[name].reshape(shape) for name, shape in self._shapes.items()}

    def replace(self, name: str, rows: Tensor) -> None:
        """Put ``rows`` in the place of those that `read` gives, of a tensor that is not learned."""
        if name in self._rules:
            raise TypeError(f"{name} are learned")
        self._unlearned[name].copy_(rows)

    def step(self, gradients: Mapping[str, Tensor], rate_factor: float = 1.0) -> Tensor:
        """Make one update, which overwrites ``gradients``; this rank's part of the first one's squared norm ()."""
        require_gradients(gradients, self._rules)
        first = next(iter(self._rules))
        norm = squared_norm(gradients[first]) if self._zero.parted and is_by_row(first) else None
        parts = tuple(self._handed_in(name, gradients[name]) for name in self._module.names)
        outputs, self._outputs = self._outputs, ()
        # Without a read before, forward, backward and update are one.
        outputs = outputs or self._forward(self._spans.read)
        loss = torch.zeros((), device=device())
        self._engine.backward(GivenGradients.apply(loss, parts, *outputs))
        norm = self._summed_squared_norm(first) if norm is None else norm
        self.optimizer.factor = rate_factor
        self._engine.step()
        return norm

    def _handed_in(self, name: str, gradient: Tensor) -> Tensor:
        """A gradient shaped as the module's output, such that DeepSpeed makes the sum over ranks of it."""
        gradient = gradient if is_by_row(name) else gradient.reshape(-1)
        if not self._zero.own_rows:
            # DeepSpeed takes the mean over ranks of what each hands in, and the sum is wanted.
            return gradient.mul_(self._ranks.layout.num_ranks)
        # With rows of its own it takes what is handed in; a flat tensor is what every rank has.
        return gradient if is_by_row(name) else self._ranks.sum(gradient)

    def _summed_squared_norm(self, name: str) -> Tensor:
        """This rank's part of the squared norm, of gradients of the first group that are summed up."""
        own: list[Any]
        if self._zero.stage == 0:
            own = [p.grad for p in self._pieces[name]] if self._ranks.layout.rank == 0 else []
        elif self._zero.offload == "none":
            own = self._engine.optimizer.averaged_gradients[0]
        else:
            own = [flat.grad for flat in self._slots.flats[name]]
        total = torch.zeros((), dtype=torch.float64, device=device())
        for part in own:
            total += squared_norm(part).to(total.device)
        return total

    def lift(self, name: str, floor: float) -> bool:
        """Lift a learned number to ``floor`` if it is below; whether it was."""
        (piece,) = self._pieces[name]
        now = self._slots.parameter(piece)
        below = bool(now < floor)  # compared in float32, so that the floor itself passes
        if below:
            self._slots.set_parameter(piece, torch.full_like(now, floor))
        return below

    def value(self, name: str) -> float:
        """A learned number as it is now."""
        (piece,) = self._pieces[name]
        return self._slots.parameter(piece).item()

    @torch.no_grad()
    def kept(self) -> dict[str, Tensor]:
        """The rows that this rank keeps, and flat tensors whole; copies."""
        if not self.num_rows:
            return self._gathered()
        # Stage 3 gathers when its engine is called; at the others an engine's forward expects a backward.
        module = self._engine if self._zero.stage == 3 else self._module
        learned = self._named(module(*self._spans.in_module(self._spans.kept)))
        first, last = self._spans.in_read(self._spans.kept)
        unlearned = {name: rows[first:last].clone() for name, rows in self._unlearned.items()}
        return learned | unlearned | {name: rows.clone() for name, rows in self._classes.items()}

    def slots(self) -> dict[str, Tensor]:
        """What update rules keep, by the keys of checkpoints; copies.

        Of a row tensor these are the rows that this rank keeps: each block is gathered, cut and freed. Of a
        flat tensor it is everything.
        """
        tensors = {}
        for name, rule in self._rules.items():
            for slot, key in rule.slots.items():
                tensors[slot_key(slot, name)] = self._slot(name, key)
            for number, key in rule.numbers.items():
                tensors[slot_key(number, name)] = self._slots.number(name, key)
        return tensors

    def _slot(self, name: str, key: str) -> Tensor:
        pieces = self._pieces[name]
        if not is_by_row(name):
            return self._slots.slot(pieces[0], key).reshape(self._shapes[name]).clone()
        cuts = map(self._spans.kept_of, self._spans.blocks)
        blocks = (self._slots.slot(piece, key) for piece in pieces)
        return torch.cat([rows[a:b].clone() for rows, (a, b) in zip(blocks, cuts, strict=True)])

    def _load_slots(self, saved: Saved, names: set[str]) -> None:
        for name, rule in self._rules.items():
            for slot, key in rule.slots.items():
                ours = slot_key(slot, name)
                if ours in names and not is_by_row(name):
                    self._slots.set_slot(self._pieces[name][0], key, saved.value(ours).reshape(-1))
                elif ours in names:
                    for piece, block in zip(self._pieces[name], self._spans.blocks, strict=True):
                        self._slots.set_slot(piece, key, saved.rows(ours, *block))

    def close(self) -> None:
        """Let go of DeepSpeed's hooks and buffers, and of what it keeps for the whole process."""
        from deepspeed.utils import groups

        self._engine.destroy()
        groups.mpu = None


def _numbers(saved: Saved, names: set[str], name: str, rule: UpdateRule) -> dict[str, Tensor]:
    """What the rule kept of a tensor as single numbers (), by torch's keys."""
    ours = {key: slot_key(number, name) for number, key in rule.numbers.items()}
    return {key: saved.value(known) if known in names else torch.zeros(()) for key, known in ours.items()}


def _initialised(module: nn.Module, optimizer: UpdateRules, config: dict, parallel: Apart | None) -> Any:
    """DeepSpeed's engine of a module."""
    import deepspeed

    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=config, mpu=parallel, dist_init_required=False
    )
    return engine
