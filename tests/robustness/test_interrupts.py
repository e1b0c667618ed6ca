"""An interrupt ends a run as an interrupt, whatever a library that it fell into makes of it."""

import os
import signal
from contextlib import suppress

import pytest

from distributed_dd import interrupts
from distributed_dd.backends.local.engine import LocalWorkers
from distributed_dd.cli import main
from tests.conftest import ROOT

HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]


@pytest.fixture
def listening(monkeypatch):
    """This process hears signals as the console command does."""
    monkeypatch.setattr(interrupts, "_came", False)
    handlers = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    interrupts.listen()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def turned_into_an_error() -> None:
    """What safetensors does: "could not determine the shape of object type"."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape") from None


def swallowed() -> None:
    """What happens in a callback from C, or in an object's end."""
    with suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("library", [turned_into_an_error, swallowed])
def test_an_interrupt_in_a_library_ends_the_run_and_the_same_command_goes_on(
    library, listening, tiny_yaml, monkeypatch, capsys
):
    steps = LocalWorkers.outer_steps

    def interrupted_at_the_fourth(self, first, last):
        for number, metrics in enumerate(steps(self, first, last), first + 1):
            if number == 4:
                library()
            yield metrics

    with monkeypatch.context() as patched:
        patched.setattr(LocalWorkers, "outer_steps", interrupted_at_the_fourth)
        assert main(["run", str(tiny_yaml), *HERE]) == 130
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == "interrupted; the same command goes on from what was saved"
    assert "Traceback" not in error
    monkeypatch.setattr(interrupts, "_came", False)
    assert main(["run", str(tiny_yaml), *HERE]) == 0


def test_an_error_without_an_interrupt_stays_what_it_is(listening):
    with pytest.raises(ValueError, match="shape"), interrupts.told_from_errors():
        raise ValueError("shape")
