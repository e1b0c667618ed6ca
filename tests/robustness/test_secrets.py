"""Passwords and tokens reach no file, no screen and no tracker; files that may hold addresses are their owner's."""

import json
import stat

import pytest

from distributed_dd.cli import main
from distributed_dd.config import to_yaml
from distributed_dd.durable import as_json
from distributed_dd.errors import UserError
from distributed_dd.records import opened, sealed
from distributed_dd.secrecy import values_without_secrets, without_secrets
from tests.conftest import ROOT

HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
SECRET = "hunter2hunter2"
PRIVATE = ("resolved.yaml", "cluster.yaml", "environment.json", "log.txt", "tracker.json", "mlflow.db")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://ann:hunter2@bucket/runs", "s3://***@bucket/runs"),
        ("see https://token@host:80/x and ftp://a:b@c", "see https://***@host:80/x and ftp://***@c"),
        ("https://h/x?X-Amz-Signature=ab12&n=1", "https://h/x?X-Amz-Signature=***&n=1"),
        ("az://c/x?sv=2024&sig=abc%3D#part", "az://c/x?sv=2024&sig=***#part"),
        ("https://h/x?a=1&api_key=k&secret=s", "https://h/x?a=1&api_key=***&secret=***"),
        ("monkey=1 num_tokens=3 key=value", "monkey=1 num_tokens=3 key=value"),
        ("ann@host.org", "ann@host.org"),
        ("file:///home/ann@work/x", "file:///home/ann@work/x"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_what_opens_it(text, shown):
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown


def test_the_value_of_a_variable_named_like_a_secret_is_blotted_out_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("LAB_TOKEN", SECRET)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "not-a-secret")
    monkeypatch.setenv("LAB_PASSWORD", "digits")  # too short: it would blot words of a configuration
    values = {"a": [f"x{SECRET}y"], "b": {"c": "not-a-secret", "n": 3}, "kind": "digits", "db_password": "short"}
    clean = {"a": ["x***y"], "b": {"c": "not-a-secret", "n": 3}, "kind": "digits", "db_password": "***"}
    assert values_without_secrets(values) == clean
    assert json.loads(as_json(values)) == clean
    assert SECRET not in to_yaml(values)
    assert SECRET not in str(UserError("here", f"no {SECRET}", fix=SECRET))


def test_a_record_is_whole_without_its_secrets(monkeypatch):
    monkeypatch.setenv("LAB_TOKEN", SECRET)
    record = json.loads(as_json(sealed("thing", "owner", {"place": f"s3://{SECRET}/x"})))
    assert opened(record, "here", "thing", owner="owner")["place"] == "s3://***/x"


def test_no_file_and_no_screen_of_a_run_holds_the_password_of_its_store(tiny_yaml, tmp_path, monkeypatch, capfd):
    """The experts go to a store whose address holds one, taken in from the environment; MLflow tracks the run."""
    monkeypatch.setenv("STORE_PASSWORD", SECRET)
    runs = tmp_path / "runs"
    options = [f"experts.storage=memory://ann:${{oc.env:STORE_PASSWORD}}@{tmp_path.name}", "tracker=mlflow"]
    assert main(["run", str(tiny_yaml), *options, *HERE]) == 0
    assert main(["show", str(tiny_yaml), *options, *HERE]) == 0
    assert main(["report", str(runs), "--to", str(tmp_path / "to")]) == 0
    (folder,) = runs.glob("digits-*-????????")
    small = ["networks=[mlp]", "num_networks=1", "full_data=false"]
    assert main(["evaluate", str(folder), *small, *HERE]) == 0
    assert "***" in (folder / "resolved.yaml").read_text()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert [str(path) for path in files if SECRET.encode() in path.read_bytes()] == []
    captured = capfd.readouterr()
    assert SECRET not in captured.out + captured.err
    private = [path for path in files if path.name in PRIVATE]
    assert {path.name for path in private} == set(PRIVATE)
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in private} == {"0o600"}


def test_an_error_tells_no_password(tiny_yaml, capfd):
    places = [
        f"results=s3://ann:{SECRET}@no-such-bucket/runs",
        f"results=nope://ann:{SECRET}@x",
        f"output=s3://a:{SECRET}@b",
    ]
    for place in places:
        assert main(["run", str(tiny_yaml), place, *HERE]) != 0
    captured = capfd.readouterr()
    assert "***" in captured.err and SECRET not in captured.out + captured.err


def test_a_blotted_address_is_not_taken_for_an_address(tiny_yaml, capfd):
    """As it is found in the file of another run."""
    assert main(["experts", str(tiny_yaml), "experts.storage=memory://***@shop", *HERE]) == 2
    assert "stands for a secret" in capfd.readouterr().err


def test_text_goes_to_people_and_files_through_what_leaves_secrets_out():
    package = ROOT / "distributed_dd"
    borders = {"Console(": "backends/local/terminal.py", "json.dump(": None, "yaml.dump": None}
    for path in package.rglob("*.py"):
        for call, border in borders.items():
            assert call not in path.read_text() or path.relative_to(package).as_posix() == border, (path, call)
