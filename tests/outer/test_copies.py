"""Results at a second place: complete, never broken, and never in the way."""

import pytest

from distributed_dd.cli import main
from distributed_dd.durable import sha256_of
from distributed_dd.errors import UserError
from distributed_dd.outer import copies as module
from distributed_dd.outer.copies import Copies
from distributed_dd.trajectories.folder import LocalFolder, RemoteFolder
from tests.end_to_end.test_run import HERE, run_folder


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BEFORE_TRIES", (0.0, 0.0, 0.0))


def files(folder):
    return {str(p.relative_to(folder)): sha256_of(p) for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_the_copy_follows_the_folder(tmp_path):
    here, there, said = tmp_path / "here", tmp_path / "there", []
    (here / "checkpoint").mkdir(parents=True)
    (here / "checkpoint" / "step-1.safetensors").write_bytes(b"one")
    (here / "checkpoint" / "latest.json").write_text("1")
    (here / ".lock").touch()
    copies = Copies(here, str(there), said.append)
    assert copies.keep() and files(there) == files(here)
    (here / "checkpoint" / "step-1.safetensors").unlink()
    (here / "checkpoint" / "step-2.safetensors").write_bytes(b"two")
    (here / "checkpoint" / "latest.json").write_text("22")
    assert copies.keep() and files(there) == files(here) and not said
    back = Copies(tmp_path / "back", str(there), said.append)
    assert back.bring() and files(tmp_path / "back") == files(here)
    assert not back.bring(), "what is here is never replaced"


def test_what_names_other_files_comes_after_them(tmp_path, monkeypatch):
    """Cut short anywhere, the copy is the older checkpoint or the newer one."""
    here, order = tmp_path / "here", []
    here.mkdir()
    for name in ("latest.json", "a.safetensors", "report.json", "z.safetensors"):
        (here / name).write_text(name)
    monkeypatch.setattr(LocalFolder, "write", lambda self, name, content: order.append(name))
    Copies(here, str(tmp_path / "there"), print).keep()
    assert order == ["a.safetensors", "z.safetensors", "latest.json", "report.json"]


@pytest.mark.parametrize("failures", [2, 99])
def test_a_failed_copy_is_tried_again_and_never_fatal(tmp_path, monkeypatch, failures):
    here, said, real = tmp_path / "here", [], LocalFolder.write
    here.mkdir()
    (here / "report.json").write_text("1")
    left = iter(range(failures))

    def flaky(self, name, content):
        if next(left, None) is not None:
            raise OSError("network is unreachable")
        return real(self, name, content)

    monkeypatch.setattr(LocalFolder, "write", flaky)
    assert Copies(here, str(tmp_path / "there"), said.append).keep() == (failures == 2)
    assert len(said) == (failures == 99) and all("network is unreachable" in line for line in said)


def test_a_copy_in_a_bucket_goes_on_on_another_machine(tiny_yaml, tmp_path, bucket, capsys):
    results = f"results={bucket}/runs"
    assert main(["distill", str(tiny_yaml), results, *HERE]) == 0
    first = files(run_folder(tiny_yaml))
    other = [f"output={tmp_path / 'elsewhere'}", f"experts.storage={tmp_path / 'runs' / 'experts'}"]
    assert main(["run", str(tiny_yaml), results, *other, *HERE]) == 0
    out = capsys.readouterr().out
    assert "fetched what is known of this run from s3://lab/runs/digits-" in out
    assert "datm: already distilled, in" in out
    (there,) = (tmp_path / "elsewhere").glob("digits-*")
    second = files(there)
    assert all(second[name] == first[name] for name in first if name.startswith(("distilled", "checkpoint")))
    assert main(["run", str(tiny_yaml), results, f"output={tmp_path / 'third'}", *HERE]) == 0
    assert "already finished" in capsys.readouterr().out


def test_a_place_that_cannot_be_reached_is_told_before_anything_starts(tiny_yaml, bucket, capsys):
    assert main(["distill", str(tiny_yaml), "results=s3://no-such-bucket/runs", *HERE]) == 1
    assert "s3://no-such-bucket/runs" in capsys.readouterr().err
    assert not (tiny_yaml.parent / "runs" / "experts").exists()


def test_a_place_that_goes_away_later_does_not_stop_a_run(tiny_yaml, bucket, monkeypatch, capsys):
    real = RemoteFolder.write

    def away(self, name, content):
        if name.endswith(".safetensors"):  # none is there at the beginning
            raise UserError("s3://lab", "cannot be written: no route to host")
        return real(self, name, content)

    monkeypatch.setattr(RemoteFolder, "write", away)
    assert main(["distill", str(tiny_yaml), f"results={bucket}/runs", *HERE]) == 0
    assert "could not be copied" in capsys.readouterr().out


def test_a_finished_run_completes_its_copy(tiny_yaml, tmp_path, capsys):
    """Killed between the report and the last copy, or the network was away."""
    there = tmp_path / "there"
    run = ["run", str(tiny_yaml), f"results={there}", *HERE]
    assert main(run) == 0
    (copy,) = there.iterdir()
    (copy / "report.json").unlink()
    (copy / "distilled" / "manifest.json").unlink()
    assert main(run) == 0
    assert "already finished" in capsys.readouterr().out
    for name in ("report.json", "distilled/manifest.json"):
        assert (copy / name).read_bytes() == (run_folder(tiny_yaml) / name).read_bytes()


def test_a_fetch_that_was_cut_short_is_no_run_and_an_older_state_replaces_nothing(tmp_path, monkeypatch):
    here, there, said = tmp_path / "here", tmp_path / "there", []
    for folder, step in ((there, 40), (here, 20)):
        (folder / "checkpoint").mkdir(parents=True)
        (folder / "checkpoint" / "latest.json").write_text(f'{{"step": {step}}}')
    with pytest.raises(UserError, match="is further"):
        Copies(here, str(there), said.append).begin()
    real = LocalFolder.read

    def killed(self, name):
        if str(self).startswith(str(there)) and len(killed.seen) > 1:
            raise KeyboardInterrupt
        killed.seen.append(name)
        return real(self, name)

    killed.seen = []
    (there / "log.txt").write_text("log")
    monkeypatch.setattr(LocalFolder, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        Copies(here, str(there), said.append).bring()
    assert '"step": 20' in (here / "checkpoint" / "latest.json").read_text(), "what was here is still here"
    monkeypatch.setattr(LocalFolder, "read", real)
    assert Copies(here, str(there), said.append).bring()
    assert '"step": 40' in (here / "checkpoint" / "latest.json").read_text() and files(here) == files(there)
    assert '"step": 20' in (tmp_path / "here.1" / "checkpoint" / "latest.json").read_text()
