"""Real images. To add a data set: write its file here and enter it in the table."""

from distributed_dd.data.digits import Digits
from distributed_dd.data.splits import DataSource, Images, Splits
from distributed_dd.data.whitening import PREPROCESSINGS, Fitted, Preprocessing
from distributed_dd.family import Family

DATA_SETS = Family("data", {"digits": Digits})

__all__ = ["DATA_SETS", "PREPROCESSINGS", "DataSource", "Fitted", "Images", "Preprocessing", "Splits"]
