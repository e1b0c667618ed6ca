"""Which epochs of a trajectory are kept, as people write it: "0-22,100" or "0-4:0.5,5-22"."""

import re
from collections.abc import Iterable

from distributed_dd.family import require
from distributed_dd.plain_values import shown

PART = re.compile(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?)(?::(\d*\.?\d+))?)?")
DIGITS = 6
MOST_EPOCHS = 1_000_000


def parse_epochs(text: str, where: str = "keep_epochs") -> tuple[float, ...]:
    """The epochs in ``text``, ascending: numbers and ranges ``first-last`` or ``first-last:step``.

    Raises:
        ConfigError: the text is not of this form, or a step is 0.
    """
    allowed = "all, window, or epochs such as 0-22,100 or 0-4:0.5,5-22"
    epochs: set[float] = set()
    for part in text.replace(" ", "").split(","):
        match = PART.fullmatch(part)
        require(match is not None, where, f"cannot read {shown(part)} in {shown(text)}", allowed)
        assert match is not None
        first, last, step = (float(group) if group else None for group in match.groups())
        assert first is not None
        last, step = first if last is None else last, 1.0 if step is None else step
        require(last <= MOST_EPOCHS, where, f"an epoch beyond {MOST_EPOCHS:,} in {shown(text)}", allowed)
        require(step > 0 and last >= first, where, f"{shown(part)} in {shown(text)} is no range", allowed)
        count = int(min((last - first) / step, MOST_EPOCHS) + 1e-9)
        require(
            len(epochs) + count < MOST_EPOCHS, where, f"{shown(part)} is too long a range", f"{MOST_EPOCHS:,} epochs"
        )
        epochs |= {same_epoch(first + index * step) for index in range(count + 1)}
    return tuple(sorted(epochs))


def format_epochs(epochs: Iterable[float]) -> str:
    """The shortest text that `parse_epochs` reads back: runs of whole epochs become ranges."""
    parts: list[str] = []
    run: list[float] = []
    for epoch in [*sorted({same_epoch(e) for e in epochs}), None]:
        if run and epoch is not None and epoch == run[-1] + 1:
            run.append(epoch)
            continue
        if run:
            parts.append(f"{run[0]:g}" if len(run) == 1 else f"{run[0]:g}-{run[-1]:g}")
        run = [] if epoch is None else [epoch]
    return ",".join(parts)


def same_epoch(epoch: float) -> float:
    """``epoch`` rounded, so that the same fraction reached on two ways is one number."""
    return round(float(epoch), DIGITS)
