"""The pages of the methods, beside the table of methods and the presets."""

import dataclasses
import re
from functools import cache

import pytest
import yaml

from distributed_dd.experiment import Experiment
from distributed_dd.methods import METHODS
from tests.conftest import ROOT

PAGES = ROOT / "docs" / "methods"
SECTIONS = (
    "What it does, Cite, Settings, Presets, Measured, Cost, What differs from the reference code, When not to use it"
)


@cache
def presets() -> dict[str, dict[str, str]]:
    """Kind -> name of a method -> a file that has it."""
    named: dict[str, dict[str, str]] = {kind: {} for kind in METHODS.members}
    for path in sorted((ROOT / "configs").glob("*/*.yaml")):
        method = (yaml.safe_load(path.read_text()) or {}).get("method", {})
        if method:
            named[method["kind"]][method["name"]] = str(path.relative_to(ROOT))
    return named


def sections(kind: str) -> dict[str, str]:
    """Title -> text of a method's page."""
    _, *parts = re.split(r"^## (.*)\n", (PAGES / f"{kind}.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("kind", METHODS.members)
def test_every_kind_has_a_page_that_the_index_names(kind):
    """Catches a method that was added without one, and a preset whose method people do not find."""
    lines = [line for line in (PAGES / "README.md").read_text().splitlines() if f"[{kind}]({kind}.md)" in line]
    assert lines and ", ".join(sections(kind)) == SECTIONS
    for name, file in presets()[kind].items():
        assert any(f"(`{name}`)" in line for line in lines), f"{name} of {file} has no line in the index"


@pytest.mark.parametrize("kind", METHODS.members)
def test_settings_of_a_page_exist(kind):
    """Catches a setting that was renamed, and one that was made up."""
    fields = {field.name for cls in (METHODS.members[kind], Experiment) for field in dataclasses.fields(cls)}
    rows = re.findall(r"^\| (`.*?) \|", sections(kind)["Settings"], flags=re.MULTILINE)
    names = [name.split(".")[0] for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    assert len(names) > 4 and set(names) <= fields


def test_figures_of_a_page_stand_in_a_record():
    """Catches a figure that was mistyped or never measured: mean and spread of each must be in the records."""
    records = "".join(path.read_text() for path in (ROOT / "docs" / "records").glob("*/README.md"))
    wrong = []
    for page in PAGES.glob("*.md"):
        for figure in re.findall(r"\d+\.\d ± \d+\.\d", page.read_text()):
            if figure not in records:
                wrong.append(f"{page.name}: {figure}")
    assert not wrong
