"""The page on Python: its examples, in order, as a reader would run them."""

import re

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "use" / "python.md"
LONGEST = 120


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    """Catches a page that no longer fits the code. What it says that is printed, is; numbers may differ."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    out = without_numbers(capsys.readouterr().out)
    claimed = re.findall(r"^ *print\(.*?\)  # (.*)$", "\n".join(blocks), flags=re.MULTILINE)
    assert len(claimed) == 4 and all(without_numbers(line) in out for line in claimed)
    assert out.count("this run is already finished; nothing was done again") == 1
    assert names["the_same"].folder == names["result"].folder != names["untested"].folder
    assert names["untested"].accuracy is None and names["evaluated"].rows and len(names["compared"].runs) == 1
    assert names["hard"].targets[3] == names["hard"][3][1] and names["pixels"][0][0].shape == (3, 8, 8)


def without_numbers(text: str) -> str:
    """Figures and digests may differ from machine to machine."""
    return re.sub(r"\d+\.\d|ipc1-\w{8}", "..", text)


def test_the_page_is_short():
    assert len(PAGE.read_text().splitlines()) <= LONGEST
