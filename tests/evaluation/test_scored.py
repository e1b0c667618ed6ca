"""An evaluation that was killed goes on with the networks that are missing."""

from distributed_dd.evaluation.scored import Scored

KEY = {"row": "distilled", "member": 0}


def test_what_was_scored_is_known_to_a_later_process_and_to_no_other_result(tmp_path):
    path = tmp_path / "scored.jsonl"
    Scored(path, "manifest").keep(KEY, (0.5, 7, ()))
    with open(path, "a") as file:
        file.write('{"network": "cut sho')
    assert Scored(path, "manifest").get(KEY) == (0.5, 7, [])
    assert Scored(path, "manifest").get({**KEY, "member": 1}) is None
    assert Scored(path, "another").get(KEY) is None
    path.write_text(path.read_text().replace("0.5", "0.9"))
    assert Scored(path, "manifest").get(KEY) is None, "a changed line counts for nothing"
