"""README, CONTRIBUTING and the pages of docs/: links lead somewhere, figures stand in records, commands are ones."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import yaml

from distributed_dd.composition import experiment_from
from distributed_dd.presets import located
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FIGURED = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "use").glob("*.md"))]
NUM_README_BYTES = 10_000
LINK = re.compile(r"\]\(([^)\s]+)\)")
TYPED = re.compile(r"^    ((?:distributed-dd|pip|export|ray|python|pytest) .*)$", re.MULTILINE)


@cache
def prose(page: Path) -> str:
    """The page without its blocks of code, where a # is a comment and brackets are lists."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """What a link may end in, so that it leads to a heading in the source and in the site, which count differently."""
    titles = re.findall(r"^#+ (.*?)\s*$", prose(page), flags=re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", re.sub(r"\]\(.*?\)", "]", title)).strip().lower() for title in titles]
    return {word.replace(" ", "-") for word in words} & {re.sub(r"[-\s]+", "-", word) for word in words}


def broken(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    wrong = []
    for link in LINK.findall(re.sub(r"`[^`]*`", "", prose(page))):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if re.match(r"[a-z]+:", link):
            continue
        if not target.is_file():
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{link}: no such heading; there are {sorted(anchors(target))}")
        elif DOCS in page.parents and DOCS not in target.resolve().parents:
            wrong.append(f"{link}: leaves docs/, where the site cannot follow")
    return wrong


def test_links_lead_to_files_and_headings():
    """Catches a page that was moved, a heading that was renamed, and a link to a folder, which a site does not have."""
    wrong = {str(page.relative_to(ROOT)): links for page in PAGES if (links := broken(page))}
    assert not wrong


def test_a_broken_link_is_seen(tmp_path):
    """The checker itself."""
    page = tmp_path / "page.md"
    title, links = "# A title, with `code`", "[a](gone.md) [b](#a-title-with-code) [c](#nothing) [d](.)"
    page.write_text(f"{title}\n{links}\n    [e](code)\n")
    assert [line.split(":")[0] for line in broken(page)] == ["gone.md", "#nothing", "."]


def test_the_readme_is_short_and_has_the_gates_command():
    """It grew to 55 KB; and what the gate runs is what a user types."""
    readme = (ROOT / "README.md").read_text()
    assert len(readme.encode()) <= NUM_README_BYTES
    gate = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert f"\n    {gate}\n" in readme
    assert "\n    pip install -e . && distributed-dd run configs/digits/datm_ipc1.yaml\n" in readme


def pages_of(nav) -> set[str]:
    """All files of a nav."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*(pages_of(part) for part in (nav.values() if isinstance(nav, dict) else nav)))


def test_every_page_is_in_the_site():
    """Catches a page that nobody finds. Records and decisions are found through their indices."""
    listed = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert listed <= pages
    alone = {page for page in pages - listed if not re.match(r"records/.*/|decisions/", page)}
    assert not alone, "give them a line in the nav of mkdocs.yml"


@pytest.mark.parametrize(("folder", "pattern"), [("records", "*/README.md"), ("decisions", "*.md")])
def test_an_index_names_every_page_of_its_folder(folder, pattern):
    """Catches a record or a decision that no index names."""
    index = DOCS / folder / "README.md"
    pages = {path.relative_to(index.parent).as_posix() for path in index.parent.glob(pattern)} - {"README.md"}
    assert pages == pages & set(LINK.findall(index.read_text()))


def test_figures_of_the_pages_stand_in_a_record():
    """Catches a figure that was mistyped or never measured: mean and spread of each must be in the records."""
    records = "".join(path.read_text() for path in (DOCS / "records").glob("*/*.md"))
    wrong = []
    for page in FIGURED:
        for figure in re.findall(r"\d+\.\d ± \d+\.\d", page.read_text()):
            if figure not in records:
                wrong.append(f"{page.relative_to(ROOT)}: {figure}")
    assert not wrong


def commands() -> list[tuple[Path, str]]:
    """Lines that people copy into a shell, without their comments."""
    lines = []
    for page in PAGES:
        lines += [(page, re.split(r"\s+# ", line)[0].strip()) for line in TYPED.findall(page.read_text())]
    return lines


def test_commands_survive_any_shell():
    """Catches brackets and braces without quotes, which zsh takes for names of files."""
    assert len(commands()) > 60
    bare = [
        f"{page.relative_to(ROOT)}: {line}"
        for page, line in commands()
        if re.search(r"[\[\]{}*?]", re.sub(r"'[^']*'|\"[^\"]*\"", "", line))
    ]
    assert not bare


def test_commands_with_a_configuration_are_understood():
    """Catches a setting that was renamed, or a file that is gone, in a line that people copy."""
    tried = 0
    for page, line in commands():
        for part in line.split(" && "):
            words = shlex.split(part)
            if words[0] != "distributed-dd" or words[1] not in ("run", "experts", "distill", "show", "diagnose"):
                continue
            file = located(Path(words[2]))
            if file.is_absolute() or (ROOT / file).is_file():
                overrides = [word for word in words[3:] if "=" in word]
                assert experiment_from(ROOT / file, overrides), f"{page}: {line}"
                tried += 1
    assert tried > 30
