"""One thing that was looked at."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """A subject, how it is, in words, and what to do about it.

    ``missing``: no run is possible; ``note``: some are not, or are slower.
    """

    subject: str
    state: State
    text: str
    to_do: str = ""

    def line(self) -> str:
        """For a person."""
        line = f"{self.state:<9}{self.subject:<15}{self.text}"
        return f"{line}; to do: {self.to_do}" if self.to_do else line
