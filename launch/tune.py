"""``distributed-dd VERB ..``, where VERB is the name of this file: what `ray submit` copies to the head.

    ray submit CLUSTER.yaml launch/run.py -- configs/digits/datm_ipc10.yaml output=/shared/runs

experts.py, distill.py, run.py and tune.py are the same text, as only one of them arrives.
"""

import os
import sys
from pathlib import Path

CHECKOUT = Path.home() / "distributed-dd"
"""Where the cluster files put the package and configs/ on every node.

Not distributed_dd: a folder of that name beside this script would be imported in place of the package.
"""


def join_the_cluster_here() -> None:
    """On the head as at home: with the Ray that runs here, configs/.. found, and all cores."""
    told = CHECKOUT / "ray_address"  # where other people's Rays may run beside ours
    os.environ.setdefault("RAY_ADDRESS", told.read_text().strip() if told.exists() else "auto")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.pop("OMP_NUM_THREADS", None)  # set to 1 in whatever Ray runs over SSH
    os.chdir(CHECKOUT)


def main() -> None:
    """The console command: its environment, signals and exit codes."""
    script = Path(__file__).resolve()
    if script.parent == Path.home().resolve():  # `ray submit` put it there
        join_the_cluster_here()
    from distributed_dd.cli import entry_point

    sys.argv = ["distributed-dd", script.stem, *sys.argv[1:]]
    entry_point()


if __name__ == "__main__":
    main()
