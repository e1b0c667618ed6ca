"""An hour on a machine with a GPU: tests, measurements, a real run, and a record of them. ``--help`` says how.

    python launch/gpu_session.py --minutes 55 configs/cifar10/datm_ipc1.yaml data.root=DATA

Works in a checkout, without Ray, DeepSpeed and MLflow; `docs/gpu.md` lists what it needs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distributed_dd.bench.session import main

if __name__ == "__main__":
    sys.exit(main())
