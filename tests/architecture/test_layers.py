"""The layering of design: a module imports its own layer or a lower one, and nothing outside ``methods/`` knows one."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "distributed_dd"
TOP = (
    "experiment experiment_run facets tracking crew diagnosing composition folder_evaluation exchange verbs sweeps "
    "drafts bench doctor listing arguments completion api commands cli __main__ __init__"
)
LAYERS = {
    **dict.fromkeys(("allocator", "errors", "family", "nested", "durable", "locks", "places", "ranges", "records"), 0),
    **dict.fromkeys(("children", "interrupts", "plain_values", "presets", "secrecy"), 0),
    "learning": 1,
    **dict.fromkeys(("data", "unroll", "trajectories", "search"), 2),
    **dict.fromkeys(("outer", "evaluation"), 3),
    "methods": 4,
    **dict.fromkeys(("backends", "config", "yaml_limits"), 5),
    **dict.fromkeys((*TOP.split(), "__main__", "__init__"), 6),
}
PLATFORMS = {"ray": "backends/ray", "deepspeed": "backends/deepspeed", "mlflow": "backends/mlflow"}
TO_BE_MADE = ("pixel_matching.py", "pixels_ipc1.yaml")
"""Files that docs/extend.md tells its reader to write."""
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
DOCUMENTS = [*TEXTS, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "launch").rglob("*.md"))]


def modules() -> dict[str, Path]:
    """Dotted name -> file."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports_of(path: Path, inside_functions: bool = True) -> set[str]:
    """What a file imports, ``TYPE_CHECKING`` included; by default also inside functions."""
    tree = tree_of(path)
    lazy: set[ast.AST] = set()
    if not inside_functions:
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        lazy = {inner for function in functions for inner in ast.walk(function)}
    names = set()
    for node in ast.walk(tree):
        if node in lazy:
            continue
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
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    # The facade hands names on when they are asked for.
    assert [line for line in wrong if not line.startswith("distributed_dd/__init__.py")] == []


def test_a_method_imports_no_other_method():
    wrong = []
    folder = PACKAGE / "methods"
    for path in folder.rglob("*.py"):
        own = path.relative_to(folder).parts[0].removesuffix(".py")
        if own in ("__init__", "names"):
            continue
        for name in imports_of(path):
            parts = name.split(".")
            if parts[:2] == ["distributed_dd", "methods"] and len(parts) > 2 and parts[2] != own:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_there_is_no_circle_of_imports():
    """``TYPE_CHECKING`` included: a circle that only types see is still two files that know each other."""
    known = modules()
    edges = {
        name: {
            target
            for imported in imports_of(path, inside_functions=False)
            for target in (imported, imported.rpartition(".")[0])
            if target in known and target != name
        }
        for name, path in known.items()
        if path != PACKAGE / "__init__.py"
    }
    try:
        order = list(TopologicalSorter(edges).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' imports '.join(reversed(error.args[1]))}")
    assert set(order) >= set(edges)


def test_platforms_are_imported_by_their_backend_and_omegaconf_by_config_only():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        for root in {name.split(".")[0] for name in imports_of(path)}:
            if root in PLATFORMS and not place.startswith("backends/"):
                wrong.append(f"{place} imports {root}")
            if root == "omegaconf" and place != "config.py":
                wrong.append(f"{place} imports {root}")
    assert not wrong


def test_nothing_outside_methods_names_a_method():
    """No kind as a literal, no ``isinstance`` on a method, no class of one but in benchmarks, which measure them."""
    from distributed_dd.methods import METHODS

    kinds = set(METHODS.members)
    classes = {cls.__name__ for cls in METHODS.members.values()}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).parts[0]
        if place == "methods":
            continue
        for node in ast.walk(tree_of(path)):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Constant) and node.value in kinds:
                wrong.append(f"{where} has the literal {node.value!r}")
            if isinstance(node, ast.Name) and node.id in classes and place != "bench":
                wrong.append(f"{where} names {node.id}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                asked = {inner.id for inner in ast.walk(node.args[1]) if isinstance(inner, ast.Name)}
                wrong += [f"{where} asks what kind of method it is" for _ in asked & {*classes, "Method", "SetMethod"}]
    assert not wrong


def test_every_path_that_documents_name_exists():
    """Two pages named a file that was gone."""
    wrong = []
    tops = "distributed_dd|tests|configs|docs|launch|" + "|".join(name for name in LAYERS if (PACKAGE / name).is_dir())
    pattern = re.compile(rf"(?<![\w/.-])((?:{tops})/[\w./-]*\w)")
    for document in DOCUMENTS:
        text = document.read_text()
        for match in pattern.finditer(text):
            name = match[1].rstrip(".")
            places = (ROOT / name, PACKAGE / name, document.parent / name)
            if Path(name).name in TO_BE_MADE:
                continue
            if name.endswith((".py", ".md", ".yaml", ".png", ".sbatch", ".sh")) and not any(p.exists() for p in places):
                wrong.append(f"{document.relative_to(ROOT)}: {name}")
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            if not (document.parent / link).exists():
                wrong.append(f"{document.relative_to(ROOT)}: link to {link}")
    assert not wrong


def test_layer_zero_is_standard_library_only():
    """But for locks, which a well-kept library does."""
    for name in (name for name, layer in LAYERS.items() if layer == 0):
        roots = {n.split(".")[0] for n in imports_of(PACKAGE / f"{name}.py")} - {"distributed_dd"}
        assert roots <= {*sys.stdlib_module_names, *({"filelock"} if name == "locks" else ())}


def test_import_and_help_load_nothing_heavy():
    code = (
        "import sys, distributed_dd; from distributed_dd.cli import main; main(['--help']);"
        "print([m for m in ('torch','ray','deepspeed','mlflow','omegaconf') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")


HEAVY = ("torchvision", "torch._dynamo", "sympy", "sklearn", "scipy", "matplotlib", "ray", "mlflow", "deepspeed")


def test_verbs_load_only_what_they_use(tmp_path):
    """The second time, when what takes long to count and to decode is kept."""
    run = tmp_path / "runs"
    code = (
        "import io, sys, contextlib; from distributed_dd.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    codes = [main(['kinds']), main(['show', '{ROOT}/configs/digits/datm_ipc10.yaml', 'output={run}'])]\n"
        f"print(codes, [name for name in {HEAVY} if name in sys.modules])"
    )
    for _ in range(2):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[0, 0] []"
