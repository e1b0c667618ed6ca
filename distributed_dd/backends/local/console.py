"""Progress for people: bars on a terminal and in a notebook, plain lines elsewhere, and a copy in the run's log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from distributed_dd.backends.local.terminal import terminal
from distributed_dd.durable import append_text
from distributed_dd.errors import UserError
from distributed_dd.places import displayable

SECONDS_BETWEEN_LINES = 10.0


class ConsoleProgress:
    """Speaks on standard output, or standard error; `log_to` keeps a copy."""

    def __init__(self, to_stderr: bool = False) -> None:
        self.console = terminal(soft_wrap=True, stderr=to_stderr)
        self._log: Path | None = None

    def log_to(self, path: Path) -> None:
        """Append everything said from here on to ``path``."""
        self._log = path

    def say(self, text: str) -> None:
        """One line for a person."""
        text = displayable(text)  # a name that is no UTF-8 could be neither printed nor logged
        self.console.print(text)
        self.note(text)

    def note(self, text: str) -> None:
        """One line for the log alone."""
        if self._log is None:
            return
        try:
            append_text(self._log, time.strftime("%Y-%m-%d %H:%M:%S ") + text + "\n", private=True)
        except UserError as error:  # what a run says must not stop it
            self._log = None
            self.console.print(f"warning: the log is not written any more: {error.where} {error.problem}")

    def _draws(self) -> bool:
        """Whether bars can be drawn: on a terminal, and in a notebook that has the widgets for it."""
        return self.console.file.isatty() or (self.console.is_jupyter and find_spec("ipywidgets") is not None)

    @contextmanager
    def bar(self, what: str, total: int, done: int = 0) -> Iterator["_Counter"]:
        """Count from ``done`` to ``total``, with rate and remaining time."""
        if not self._draws():
            yield _Counter(self, what, total, done, None)
            return
        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console) as display:
            task = display.add_task(what, total=total, completed=done, note="")
            yield _Counter(self, what, total, done, lambda done, note: display.update(task, completed=done, note=note))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.2f}/s" if task.speed else "")


class _Counter:
    def __init__(self, console: ConsoleProgress, what: str, total: int, done: int, draw) -> None:
        self.console, self.what, self.total, self.done, self.draw = console, what, total, done, draw
        self.first, self.started, self.last_line = done, time.monotonic(), time.monotonic()

    def advance(self, note: str = "") -> None:
        """One more is done."""
        self.reach(self.done + 1, note)

    def reach(self, done: int, note: str = "") -> None:
        """So many are done; a line now and then, where there is no bar."""
        moved, self.done = done > self.done, done
        now = time.monotonic()
        if self.draw is not None:
            self.draw(done, note)
        if not moved or (now - self.last_line < SECONDS_BETWEEN_LINES and self.done < self.total):
            return
        self.last_line = now
        rate = (self.done - self.first) / max(now - self.started, 1e-9)
        left = (self.total - self.done) / rate
        line = f"{self.what}: {self.done}/{self.total}, {rate:.2f}/s, {_clock(left)} left"
        line += f", {note}" if note else ""
        if self.draw is None:
            self.console.say(line)
        else:
            self.console.note(line)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
