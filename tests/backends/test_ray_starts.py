"""A Ray whose processes come too late is started again."""

import pytest

from distributed_dd.backends.ray import connection
from distributed_dd.errors import UserError

LATE = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


@pytest.fixture
def starts(monkeypatch):
    """What each start of Ray does: an error, or nothing; the list of options that were asked for."""
    asked = []
    outcomes = []

    def init(**options):
        asked.append(options)
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    monkeypatch.setattr(connection, "_init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    return asked, outcomes


def test_a_late_start_is_tried_again(starts):
    asked, outcomes = starts
    outcomes += [Exception(LATE), None]
    connection._start(2)
    assert len(asked) == 2 and asked[0] == asked[1] and asked[0]["num_cpus"] == 2


def test_one_that_never_comes_is_one_error(starts):
    asked, outcomes = starts
    outcomes += [Exception(LATE)] * connection.MOST_STARTS
    with pytest.raises(UserError, match="timed out during startup"):
        connection._start(None)
    assert len(asked) == connection.MOST_STARTS


def test_other_errors_are_not_repeated(starts):
    asked, outcomes = starts
    outcomes += [ValueError("num_cpus")]
    with pytest.raises(ValueError, match="num_cpus"):
        connection._start(-1)
    assert len(asked) == 1
