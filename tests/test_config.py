"""Files and overrides into plain mappings."""

import pytest

from distributed_dd import config
from distributed_dd.errors import ConfigError, MissingInputError


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
