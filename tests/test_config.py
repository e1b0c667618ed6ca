"""Files and overrides into plain mappings."""

import pytest

from distributed_dd import config
from distributed_dd.errors import ConfigError, MissingInputError
from distributed_dd.nested import kinds_first


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("seed: 1\nnetwork: {kind: convnet, depth: 3}\nbatch: ${seed}\nrate: 1e-5\n")
    return file


def test_defaults_then_file_then_command_line(path):
    read = config.read(path, ["seed=7", "network.depth=2", "new.key=[a, b]"])
    assert read["seed"] == 7 and read["network"] == {"kind": "convnet", "depth": 2}
    assert read["batch"] == 7, "interpolations see overrides"
    assert read["new"] == {"key": ["a", "b"]}
    assert read["rate"] == 1e-5, "YAML 1.1 would read 1e-5 as text"


def test_a_new_kind_takes_the_old_kinds_keys_away(path):
    assert config.read(path, ["network.kind=mlp", "network.width=8"])["network"] == {
        "kind": "mlp",
        "width": 8,
    }
    assert config.read(path, ["network.kind=convnet"])["network"] == {"kind": "convnet", "depth": 3}


@pytest.mark.parametrize("override", ["seed", "=3", "--seed"])
def test_what_is_no_override_is_refused(path, override):
    with pytest.raises(ConfigError, match=r"key\.path=value"):
        config.read(path, [override])


@pytest.mark.parametrize("text", ["a: [1", "- a\n- b\n", "a: ${b}\n"])
def test_what_is_no_configuration_is_one_error(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        config.read(tmp_path / "bad.yaml")


def test_bad_yaml_names_its_line_and_what_is_no_text_is_one_error(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: 1\nb: [1\n")
    with pytest.raises(ConfigError, match="line 3"):
        config.read(tmp_path / "bad.yaml")
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\r\n\xff\xfe\x00")
    for path in (tmp_path / "picture.yaml", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            config.read(path)


def test_a_missing_file_names_its_neighbours(path):
    with pytest.raises(MissingInputError, match=r"a\.yaml"):
        config.read(path.with_name("b.yaml"))


def test_what_is_frozen_is_read_back_the_same(path, tmp_path):
    values = config.read(path)
    (tmp_path / "again.yaml").write_text(config.to_yaml(values))
    assert config.read(tmp_path / "again.yaml") == values


def test_overrides_of_a_kind_and_its_keys_hold_in_any_order(path):
    """A kind that came after its keys would take them away, and its defaults would be run in silence."""
    expected = {"kind": "mlp", "width": 8, "depth": 5}
    for typed in (["network.width=8", "network.depth=5", "network.kind=mlp"], ["network.kind=mlp", "network.depth=5"]):
        found = config.read(path, [*typed, "network.width=8"])["network"]
        assert found == expected
    assert config.read(path, ["network.kind=mlp", "network.width=8", "network.kind=convnet"])["network"]["width"] == 8


def test_of_a_group_and_its_kind_the_later_one_holds():
    keys = ["a.b", "a.x", "a.y.z", "c", "a.kind", "a.y.kind"]
    assert kinds_first(keys) == ["a.kind", "a.b", "a.x", "a.y.kind", "a.y.z", "c"]
    assert kinds_first(["a.x", "a", "a.y", "a.kind"]) == ["a.x", "a", "a.kind", "a.y"]
    assert kinds_first(["kind", "x.kind", "x.kind", "x.y"]) == ["kind", "x.kind", "x.kind", "x.y"]
