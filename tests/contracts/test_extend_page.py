"""The page that tells newcomers how to add a method: its example, word for word, runs the contract suite."""

import os
import re
import subprocess
import sys

import yaml

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "extend.md"
PLUGIN = """
import pixel_matching
from distributed_dd.methods import METHODS
from tests.contracts import small_worlds
from tests.contracts.small_worlds import POINTS, plain

METHODS.members["pixel_matching"] = pixel_matching.PixelMatching
small_worlds.EVERY_POINT.append("pixels")
"""


def blocks(language: str) -> list[str]:
    """The page's blocks of code of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def test_the_example_of_the_page_passes_the_contract_suite(tmp_path):
    """Catches a page that no longer fits the code, and a suite that asks more than the page says."""
    method, table, tests, *_ = blocks("python")
    assert "import PixelMatching" in table and '"pixel_matching": PixelMatching' in table
    (tmp_path / "pixel_matching.py").write_text(method)
    (tmp_path / "with_pixels.py").write_text(PLUGIN + tests)
    command = [sys.executable, "-m", "pytest", "tests/contracts/test_methods.py", "-v", "-p", "with_pixels"]
    command += ["-k", "pixel", "-p", "no:cacheprovider"]
    path = f"{tmp_path}:{ROOT}"
    done = subprocess.run(command, cwd=ROOT, env=environment(PYTHONPATH=path), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 20


def environment(**changes: str) -> dict[str, str]:
    """This process's, changed."""
    return {**os.environ, **changes}


def test_the_configuration_of_the_page_is_one():
    """Catches settings that the method does not have."""
    (text,) = blocks("yaml")
    assert yaml.safe_load(text)["method"] == {"kind": "pixel_matching", "name": "pixels"}
