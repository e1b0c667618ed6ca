"""A refactoring is bit-identical, or it is none."""

import json

import pytest

from tests.references import golden


@pytest.mark.slow
@pytest.mark.parametrize("config", list(golden.RUNS))
def test_the_bytes_of_a_run_are_those_of_the_record(config, tmp_path):
    """Catches any change of a draw, of an order of summation, or of what is written."""
    known = json.loads(golden.RECORD.read_text())
    if golden.machine() != known["machine"]:
        pytest.skip(f"recorded on {known['machine']}, here {golden.machine()}: bytes need not be the same")
    assert golden.run(config, tmp_path) == known["runs"][config]
