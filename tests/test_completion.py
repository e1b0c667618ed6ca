"""The tab key, as shells ask: with a line and a place in it, answered on a stream of its own."""

import os
import subprocess
import sys

import pytest

from distributed_dd import presets
from distributed_dd.arguments import VERBS
from distributed_dd.cli import main


def completions(line: str, cwd) -> set[str]:
    """What the shell would offer at the end of a line."""
    pytest.importorskip("argcomplete")
    answer = cwd / "answer"
    asked = {
        **{"_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)},
        **{"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"},
    }
    code = (
        "import sys, os; from distributed_dd import cli; real = os._exit\n"
        "def at_the_end(code): print([n for n in ('torch', 'rich') if n in sys.modules], flush=True); real(code)\n"
        "os._exit = at_the_end; cli.entry_point()"
    )
    # argcomplete binds its exit when it is imported, which is after this code has begun.
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, **asked}, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", "a person waits: nothing heavy is loaded"
    return {word.rstrip() for word in answer.read_text().split("\n")}


def test_verbs_options_and_names_are_completed(tmp_path):
    (tmp_path / "mine.yaml").write_text("")
    (tmp_path / "mine.txt").write_text("")
    assert completions("distributed-dd ", tmp_path) >= set(VERBS)
    assert completions("distributed-dd diag", tmp_path) == {"diagnose"}
    assert completions("distributed-dd run --", tmp_path) == {"--on", "--help"}
    assert completions("distributed-dd run digits/datm", tmp_path) == {"digits/datm_ipc1", "digits/datm_ipc10"}
    assert completions("distributed-dd run mi", tmp_path) == {"mine.yaml"}


def test_what_is_completed_fits_the_verb(tmp_path):
    sweeps = {name for name in presets.names() if name.startswith("tune/")}
    assert completions("distributed-dd tune t", tmp_path) == sweeps
    assert "clusters/in_process" in completions("distributed-dd run x --on clusters/", tmp_path)
    assert completions("distributed-dd completion ", tmp_path) >= {"bash", "zsh", "fish"}
    assert completions("distributed-dd configs digits/kip_", tmp_path) == {"digits/kip_ipc1", "digits/kip_ipc10"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_ask(shell, capsys):
    pytest.importorskip("argcomplete")
    assert main(["completion", shell]) == 0
    assert "distributed-dd" in capsys.readouterr().out


def test_without_argcomplete_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["completion", "bash"]) == 3
    assert "pip install argcomplete" in capsys.readouterr().err


def test_help_does_not_load_it():
    code = "import sys; from distributed_dd.cli import main; main(['--help']); print('argcomplete' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
