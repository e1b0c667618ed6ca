"""A run whose set is stored in a form, as a user types it: what is written, read, exported, scored and refused."""

import json

import numpy
import pytest
import scipy.fft
import torch
import yaml
from safetensors.torch import load_file

import distributed_dd
from distributed_dd.cli import main
from distributed_dd.learning.set_forms.frequency import Frequency
from distributed_dd.outer.set_worker import SetWorker
from tests.conftest import ROOT

HERE = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
VALUES = {
    "images_per_class": 1,
    "num_outer_steps": 4,
    "checkpoint_every": 2,
    "tracker": "none",
    "data": {"kind": "digits"},
    "preprocessing": {"kind": "standardise"},
    "network": {"kind": "convnet", "depth": 1, "width": 4},
    "method": {"kind": "distribution_matching", "batch_size": 10},
    "evaluate": {
        "num_epochs": 2,
        "num_networks": 2,
        "num_validation_networks": 1,
        "every": 4,
        "num_epochs_full_data": 1,
        "controls": ["herding"],
    },
}
FREQUENCY = {"kind": "frequency", "share": 0.25}


def file_with(folder, form, **more):
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**VALUES, "output": str(folder / "runs"), "set": {"form": form}, **more}))
    return path


def run_in(folder):
    (run,) = (folder / "runs").glob("digits-*-????????")
    return run


def test_frequencies_are_learned_written_and_read(tmp_path, capsys, monkeypatch):
    """A run is cut, goes on without choosing its mask again, and everybody downstream sees pictures."""
    file, outer_step = file_with(tmp_path, FREQUENCY), SetWorker.outer_step

    def cut(self, step, prepared=None):
        if step == 3:
            raise KeyboardInterrupt
        return outer_step(self, step, prepared)

    with monkeypatch.context() as patched:
        patched.setattr(SetWorker, "outer_step", cut)
        assert main(["run", str(file), *HERE]) == 130
    with monkeypatch.context() as patched:
        patched.setattr(Frequency, "fitted", lambda *_: pytest.fail("a mask is chosen once"))
        assert main(["run", str(file), *HERE]) == 0
    folder = run_in(tmp_path)
    distilled = distributed_dd.load_distilled(folder)
    assert distilled.images.shape == (40, 1, 8, 8) and len(distilled) == 40
    assert distilled.classes.tolist() == [number for number in range(10) for _ in range(4)]
    assert distilled.manifest["images_per_class"] == 1 and distilled.manifest["pictures_per_class"] == 4

    kept = load_file(folder / "distilled" / "distilled.safetensors")
    assert "images" not in kept and kept["stored.images"].shape == (10, 4, 16) and kept["form.mask"].sum() == 16
    spectra = numpy.zeros((40, 1, 8, 8), dtype=numpy.float32)
    spectra[:, kept["form.mask"].numpy()] = kept["stored.images"].flatten(0, 1).numpy()
    pictures = scipy.fft.idctn(spectra, axes=(2, 3), norm="ortho")
    assert distilled.images.numpy() == pytest.approx(pictures, abs=1e-5)

    report = json.loads((folder / "report.json").read_text())
    # At the bytes of one image; labels of four pictures; a mask of 64 bytes for ten classes.
    assert report["bytes_per_class"] == {"images": 4 * 64, "labels": 4 * 4 * 10, "form": 7}
    assert "networks see 4 pictures of each class" in (folder / "report.md").read_text()
    names = [row["name"] for row in report["rows"]]
    assert {"distilled", "distilled_last_step", "starting_set", "random_real", "herding"} <= set(names)
    seen = load_file(folder / "distilled" / "last_step.safetensors")
    assert torch.equal(seen["form.mask"], kept["form.mask"])

    assert main(["export", str(folder), "--as", "stored", "--to", str(tmp_path / "stored")]) == 0
    arrays = numpy.load(tmp_path / "stored" / "stored.npz")
    assert (arrays["stored.images"] == kept["stored.images"].numpy()).all() and "images" not in arrays
    assert (arrays["form.mask"] == kept["form.mask"].numpy()).all()
    assert json.loads(str(arrays["form"]))["settings"] == FREQUENCY
    assert main(["export", str(folder), "--as", "npz", "--to", str(tmp_path / "npz")]) == 0
    assert (numpy.load(tmp_path / "npz" / "distilled.npz")["images"] == distilled.images.numpy()).all()

    capsys.readouterr()
    assert main(["evaluate", str(folder), "networks=[mlp]", "num_networks=2", *HERE]) == 0
    assert "distilled" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "runs"), "--to", str(tmp_path / "pages")]) == 0
    assert "0.2 + 0.2 + 0.0" in capsys.readouterr().out


def test_a_damaged_or_changed_form_is_refused(tmp_path, capsys):
    file = file_with(tmp_path, {"kind": "quantised", "bits": 4, "per_image": 4})
    assert main(["run", str(file), *HERE]) == 0
    folder = run_in(tmp_path)
    kept = load_file(folder / "distilled" / "distilled.safetensors")
    assert kept["stored.codes"].dtype == torch.uint8 and kept["stored.codes"].shape == (10, 4, 32)
    report = json.loads((folder / "report.json").read_text())
    assert report["bytes_per_class"] == {"images": 4 * (32 + 8), "labels": 160, "form": 0}
    distilled = distributed_dd.load_distilled(folder)
    levels = [len(picture.unique()) for picture in distilled.images]
    assert len(distilled) == 40 and max(levels) <= 16
    manifest = folder / "distilled" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"bits": 4', '"bits": 8'))
    assert main(["evaluate", str(folder), *HERE]) == 5


def test_a_diagnosis_asks_sets_of_as_many_pictures(tmp_path, capsys):
    file = file_with(tmp_path, {"kind": "formation"})
    few = ["diagnose.num_sets=5", "diagnose.num_draws=2", "diagnose.num_epochs=1", "diagnose.num_validation=50"]
    assert main(["diagnose", str(file), *few, *HERE]) == 0
    (record,) = (tmp_path / "runs" / "diagnoses").glob("*/diagnosis.json")
    pairs = json.loads(record.read_text())["pairs"]
    assert len(pairs) == 5 and any(pair["name"] == "starting set" for pair in pairs)
    capsys.readouterr()
    assert main(["show", str(file), *HERE]) == 0
    # Stored images and momenta; three copies of those, pictures and their gradients.
    out = capsys.readouterr().out
    assert f"{2 * 10 * 64 * 4 / 1024:.1f} KiB for a checkpoint" in out
    assert f"{(3 * 10 + 2 * 40) * 64 * 4 / 1024:.1f} KiB for the set" in out


@pytest.mark.parametrize(
    ("form", "more", "words"),
    [
        ({"kind": "formation", "factor": 9}, {}, "set.form.factor"),
        ({"kind": "frequency", "share": 0.01}, {}, "set.form.share"),
        ({"kind": "frequency", "share": 1.5}, {}, "set.form.share"),
        ({"kind": "frequency", "share": 0}, {}, "set.form.share"),
        ({"kind": "quantised", "bits": 6}, {}, "set.form.bits"),
        ({"kind": "quantised", "per_image": 4}, {}, "288 bytes"),
        ({"kind": "tiles"}, {}, "formation"),
        ({"kind": "formation"}, {"images_per_class": 40}, "of 4 pictures each"),
        ({"kind": "formation"}, {"method": {"kind": "generative"}}, "learns no set"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(tmp_path, capsys, form, more, words):
    assert main(["run", str(file_with(tmp_path, form, **more)), *HERE]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "runs").exists()
