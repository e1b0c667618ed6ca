"""The forms that a distilled set can be stored in."""

from distributed_dd.family import Family
from distributed_dd.learning.set_forms.form import Codec, SetForm
from distributed_dd.learning.set_forms.formation import Formation
from distributed_dd.learning.set_forms.frequency import Frequency
from distributed_dd.learning.set_forms.pixels import Pixels
from distributed_dd.learning.set_forms.quantised import Quantised
from distributed_dd.learning.set_forms.stored_rows import grouped, one_by_one, seen, stored

SET_FORMS = Family(
    "form of a set",
    {"pixels": Pixels, "formation": Formation, "frequency": Frequency, "quantised": Quantised},
)

__all__ = ["SET_FORMS", "Codec", "Pixels", "SetForm", "grouped", "one_by_one", "seen", "stored"]
