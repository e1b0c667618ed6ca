"""Runs of a minute whose bytes no refactoring may change, and the processor that they were recorded on.

    python -m tests.references.golden            # compare with the record
    python -m tests.references.golden --record   # write it anew, where a change of the bytes is wanted

Bytes depend on the processor and on torch: the record counts only where both are those of the record. Elsewhere
compare two checkouts on one machine.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

RECORD = Path(__file__).with_name("golden.json")
ROOT = Path(__file__).resolve().parents[2]
COMMON = (
    "tracker=none",
    "evaluate.num_networks=1",
    "evaluate.num_validation_networks=1",
    "evaluate.num_epochs_full_data=1",
)
RUNS = {
    "configs/digits/datm_ipc1.yaml": ("evaluate.num_epochs=20",),
    "configs/digits/generative_ipc10.yaml": (
        "num_outer_steps=12",
        "checkpoint_every=6",
        "method.gan.num_steps=30",
        "method.pool.steps_per_network=5",
        "evaluate.every=6",
        "evaluate.num_epochs=4",
    ),
}
KEPT = (
    "*/distilled/*.safetensors",
    "*/generator/*.safetensors",
    "experts/*/expert-0000.safetensors",
    "gans/*/gan.safetensors",
)


def machine() -> dict[str, str]:
    """What decides about bytes beside the code."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "torch": torch.__version__,
        "processor": model or platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def run(config: str, output: Path) -> dict[str, str]:
    """SHA-256 of the files that a run leaves; digests in the names of folders are left out."""
    command = [
        sys.executable,
        "-m",
        "distributed_dd",
        "run",
        config,
        "--on",
        "configs/clusters/in_process.yaml",
        f"output={output}",
        *COMMON,
        *RUNS[config],
    ]
    single = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env={**os.environ, **single}, check=True, capture_output=True)
    found = sorted(path for pattern in KEPT for path in output.glob(pattern))
    return {
        f"{path.parent.name if path.parent.name in ('distilled', 'generator') else path.parents[1].name}/"
        f"{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
    }


def measured() -> dict[str, dict[str, str]]:
    """Of all runs."""
    with tempfile.TemporaryDirectory() as folder:
        return {config: run(config, Path(folder) / str(number)) for number, config in enumerate(RUNS)}


if __name__ == "__main__":
    found = measured()
    if "--record" in sys.argv:
        RECORD.write_text(json.dumps({"machine": machine(), "runs": found}, indent=1) + "\n")
    known = json.loads(RECORD.read_text())
    same = found == known["runs"]
    print("same bytes" if same else f"other bytes: {json.dumps(found, indent=1)}")
    print(f"recorded on {known['machine']}, here {machine()}")
    sys.exit(not same)
