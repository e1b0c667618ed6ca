"""The trajectory store: whole or absent, checksummed, of the right experts; on disk and elsewhere."""

import json

import pytest
import torch

from distributed_dd.errors import IntegrityError, MissingInputError, UserError
from distributed_dd.records import sealed
from distributed_dd.trajectories.folder import LocalFolder, RemoteFolder, folder_at, inside
from distributed_dd.trajectories.forms import Full
from distributed_dd.trajectories.store import TrajectoryStore
from distributed_dd.trajectories.trajectory import check_fits
from distributed_dd.trajectories.unfinished import Reached

EPOCHS = (0.0, 1.0, 2.0, 3.0)


@pytest.fixture(params=["folder", "object store"])
def root(request, tmp_path):
    """A folder, and its stand-in for an object store: fsspec's memory file system."""
    if request.param == "folder":
        yield str(tmp_path / "experts")
        return
    import fsspec

    yield f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").rm("/", recursive=True)


def store(root, network="n"):
    return TrajectoryStore.below(root, {"network": network})


def write(made, expert):
    rows = torch.arange(12.0).view(4, 3) + expert
    made.write(expert, Full().tensors(EPOCHS, rows, [3]), EPOCHS, {"seconds": 1.0})


def filled(root, count=2):
    made = store(root)
    for expert in range(count):
        write(made, expert)
    made.write_manifest(count)
    return made


def flip(made, expert):
    content = bytearray(made.folder.read(made.name_of(expert)))
    content[-1] ^= 1
    made.folder.write(made.name_of(expert), bytes(content))


def test_what_is_written_is_read_epoch_by_epoch(root):
    trajectory = filled(root).open(1)
    assert (trajectory.num_epochs, trajectory.num_parameters) == (3, 3)
    assert trajectory.checkpoint(2).tolist() == [7.0, 8.0, 9.0]
    assert torch.equal(trajectory.checkpoint(-1), trajectory.checkpoint(3))


def test_a_half_written_expert_is_no_expert(root):
    """Killed between the file and its record, or in the middle of the file."""
    made = filled(root)
    made.folder.write("expert-0002.safetensors", b"half")
    made.folder.write(".expert-0003.safetensors.17.part", b"half")
    assert made.missing(4) == [2, 3]


def test_a_flipped_bit_is_refused_and_named(root):
    made = filled(root)
    flip(made, 0)
    with pytest.raises(IntegrityError, match="expert-0000"):
        made.open(0)
    assert made.open(1).num_parameters == 3


def test_damage_is_found_without_being_asked_for_the_file(root):
    """On a disk by checksum; elsewhere by size, as fetching everything to look would be too dear."""
    made = filled(root, 3)
    flip(made, 0)
    made.folder.write(made.name_of(2), made.folder.read(made.name_of(2))[:-1])
    assert made.damaged([0, 1, 2]) == ([2] if "://" in root else [0, 2])


def test_a_damaged_expert_set_aside_is_missing_and_its_file_is_kept(root):
    made = filled(root)
    flip(made, 0)
    aside = made.set_aside(0)
    assert made.missing(2) == [0] and aside in made.folder.names()
    write(made, 0)
    assert made.missing(2) == [] and made.open(0).num_parameters == 3


def test_other_experts_in_the_same_place_are_refused(root):
    made = filled(root)
    other = TrajectoryStore(made.folder, "b" * 64, {"network": "m"})
    for refused in (lambda: other.open(0), lambda: other.missing(2), lambda: other.write_manifest(2)):
        with pytest.raises(IntegrityError, match="other experts"):
            refused()
    made.folder.remove("manifest.json")
    with pytest.raises(IntegrityError, match="other experts"):
        other.write_manifest(2)


def test_a_missing_expert_says_what_to_do(root):
    with pytest.raises(MissingInputError, match="distributed-dd experts"):
        filled(root).open(7)


def test_a_store_is_found_where_it_lies_and_nowhere_else(root):
    made = filled(root)
    found = TrajectoryStore.at(str(made.folder))
    assert found.digest == made.digest and found.num_experts == 2
    with pytest.raises(MissingInputError, match="no expert store"):
        TrajectoryStore.at(f"{root}/elsewhere")


def test_the_content_digest_is_of_the_trajectories_alone(root):
    made = filled(root)
    before = made.content_sha256
    rows = torch.arange(12.0).view(4, 3) + 1
    made.write(1, Full().tensors(EPOCHS, rows, [3]), EPOCHS, {"seconds": 99.0})
    made.write_manifest(2)
    assert made.content_sha256 == before
    made.write(1, Full().tensors(EPOCHS, rows + 1e-6, [3]), EPOCHS, {"seconds": 99.0})
    made.write_manifest(2)
    assert made.content_sha256 != before


def test_a_manifest_keeps_the_experts_beyond_those_asked_for(root):
    made = filled(root, 3)
    made.folder.remove("expert-0002.json")
    made.write_manifest(1)
    assert made.facts(2)["expert"] == 2
    content = sealed("experts", made.digest, {"schema": 99, "experts": []})
    made.folder.write("manifest.json", json.dumps(content).encode())
    with pytest.raises(IntegrityError, match="schema: unknown value 99"):
        made.facts(2)


def test_an_expert_without_enough_epochs_is_missing_for_who_needs_them(root):
    made = filled(root)
    assert made.missing(2, lambda record: Full().covers((0.0, 1.0, 2.0, 3.0), (3.0,))) == []
    assert made.missing(2, lambda record: Full().covers((0.0, 3.0), (2.0,))) == [0, 1]
    assert made.facts(0)["epochs"] == "0-3"


def test_another_network_or_too_few_epochs_are_refused(root):
    trajectory = filled(root).open(0)
    check_fits(trajectory, "here", 3, (0, 3))
    with pytest.raises(IntegrityError, match="3 parameters"):
        check_fits(trajectory, "here", 4, (0, 3))
    with pytest.raises(IntegrityError, match="not epoch 4"):
        check_fits(trajectory, "here", 3, (0, 3, 4))


def test_a_place_is_a_folder_or_an_address(tmp_path):
    assert isinstance(folder_at(tmp_path), LocalFolder) and isinstance(folder_at(f"file://{tmp_path}"), LocalFolder)
    assert isinstance(folder_at("s3://bucket/experts"), RemoteFolder)
    assert str(inside("s3://bucket/experts/", "abc")) == "s3://bucket/experts/abc"


def test_an_unknown_protocol_says_so():
    with pytest.raises(UserError, match="no address that fsspec knows"):
        folder_at("nosuch://bucket/experts").names()


def test_a_remote_file_is_fetched_once_and_a_damaged_copy_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTRIBUTED_DD_CACHE", str(tmp_path / "cache"))
    made = filled(f"memory://{tmp_path.name}-fetch")
    sha256 = made.facts(0)["sha256"]
    path = made.folder.path(made.name_of(0), sha256)
    path.write_bytes(b"damaged")
    assert store(f"memory://{tmp_path.name}-fetch").open(0).checkpoint(0).tolist() == [0.0, 1.0, 2.0]


def test_a_sweep_removes_what_nobody_needs_and_nothing_else(root):
    made = filled(root)
    for expert in (1, 2):  # one is stored, the other is in training
        reached = Reached(
            epoch=1,
            theta_P=torch.zeros(3),
            velocity_P=torch.zeros(3),
            seconds=1.0,
            rows={0.0: torch.zeros(3), 1.0: torch.zeros(3)},
        )
        made.unfinished(expert, (0.0, 1.0)).save(0, reached)
    made.folder.write(".expert-0002.safetensors.0123456789ab.part", b"half")
    before = made.folder.names()
    made.sweep()
    gone = before - made.folder.names()
    assert {name.split("-")[1][:4] for name in gone} == {"0001", "0002"} and len(gone) == 2
    assert made.epochs_reached() == {2: 1}


def test_a_store_below_a_relative_folder_is_found_by_processes_that_start_elsewhere(tmp_path, monkeypatch):
    """Ray's workers on other nodes do not start where the driver did."""
    import pickle

    monkeypatch.chdir(tmp_path)
    store = TrajectoryStore.below("runs/experts", {"a": 1})
    store.folder.write("here", b"content")
    (tmp_path / "elsewhere").mkdir()
    sent = pickle.dumps(store)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(sent).folder.read("here") == b"content"
    assert str(store.folder).startswith("runs/experts"), "people read what they typed"
