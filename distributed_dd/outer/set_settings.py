"""What any distilled set may have, whatever its method: the group ``set`` of a configuration."""

from dataclasses import dataclass

from distributed_dd.family import choice, require, setting
from distributed_dd.learning.set_forms import SET_FORMS, Pixels, SetForm
from distributed_dd.outer.frozen import Frozen


@dataclass(frozen=True)
class SetSettings:
    """How pictures are stored, and which of them stay real images."""

    form: SetForm = choice(SET_FORMS, "how its pictures are stored", Pixels(), added=True)
    frozen: Frozen = setting("images that are real and never change", Frozen(), added=True)

    def __post_init__(self) -> None:
        require(
            self.form.plain or not self.frozen.active,
            "frozen",
            f"real images are pixels, and the set is stored in the form {SET_FORMS.kind_of(self.form)}",
            "form.kind: pixels",
            "leave one of them out",
        )
