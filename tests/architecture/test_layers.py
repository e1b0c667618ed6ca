"""The layering of design: a module imports its own layer or a lower one."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "distributed_dd"
LAYERS = {
    "allocator": 0, "errors": 0, "family": 0, "durable": 0, "distillation": 1,
    "data": 2, "training": 2, "trajectories": 2,
    "stages": 3, "backends": 4, "config": 4, "composition": 5, "runners": 5, "set_evaluation": 5,
    "exchange": 5, "sweeps": 5, "commands": 5, "cli": 5, "bench": 5, "__main__": 5, "__init__": 5,
}  # fmt: skip
PLATFORMS = {"ray", "deepspeed", "mlflow"}


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_imports_only_its_own_layer_or_a_lower_one():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        own = LAYERS[path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] == "distributed_dd" and len(parts) > 1 and LAYERS.get(parts[1], 0) > own:
                wrong.append(f"{path.name} imports {name}")
    assert not wrong


def test_platforms_are_imported_by_backends_and_omegaconf_by_config_only():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).parts[0]
        roots = {name.split(".")[0] for name in imports_of(path)}
        if roots & PLATFORMS and place != "backends":
            wrong.append(str(path))
        if "omegaconf" in roots and place != "config.py":
            wrong.append(str(path))
    assert not wrong


def test_layer_zero_is_standard_library_only():
    for name in ("allocator", "errors", "family", "durable"):
        roots = {n.split(".")[0] for n in imports_of(PACKAGE / f"{name}.py")} - {"distributed_dd"}
        assert roots <= set(sys.stdlib_module_names)


def test_import_and_help_load_nothing_heavy():
    code = (
        "import sys, distributed_dd; from distributed_dd.cli import main; main(['--help']);"
        "print([m for m in ('torch','ray','deepspeed','mlflow','omegaconf') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")
