"""How far the last sets of two runs are apart.

python compare.py RUN_FOLDER RUN_FOLDER
"""

import json
import sys
from pathlib import Path

from safetensors.torch import load_file

one, two = (load_file(Path(folder) / "distilled" / "last_step.safetensors") for folder in sys.argv[1:])
found = {}
for name, value in one.items():
    difference = float((two[name].double() - value.double()).abs().max())
    found[name] = {"largest difference": difference, "largest entry": float(value.double().abs().max())}
print(json.dumps(found, indent=1))
