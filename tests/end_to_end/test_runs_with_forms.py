"""A run whose set is stored in a form, as a user types it: what is written, read, exported, scored and refused."""

import json

import numpy
import pytest
import scipy.fft
import torch
import yaml
from safetensors.torch import load_file
from torch.nn.functional import interpolate

import distributed_dd
from distributed_dd.cli import main
from distributed_dd.evaluation import fits
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
    assert distilled.targets.tolist() == [number for number in range(10) for _ in range(4)]
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


def test_four_bits_are_scored_kept_exported_and_read_as_the_same_numbers(tiny_yaml, tmp_path, capsys, monkeypatch):
    """Networks that saw the float32 numbers before rounding would be scored on a set that nobody can load."""
    scored, run_fit = {}, fits.run_fit

    def watched(fit, contest):
        scored.setdefault(fit.row, fit.images)
        return run_fit(fit, contest)

    monkeypatch.setattr(fits, "run_fit", watched)
    runs, bytes_of_images = tmp_path / "runs", {}
    for bits in (8, 4):
        scored.clear()
        form = ["set.form.kind=quantised", f"set.form.bits={bits}", "evaluate.num_networks=1"]
        known = {*runs.glob("digits-*")}
        assert main(["run", str(tiny_yaml), *form, *HERE]) == 0
        (folder,) = {*runs.glob("digits-*")} - known
        bytes_of_images[bits] = json.loads((folder / "report.json").read_text())["bytes_per_class"]["images"]
    ranges = 2 * 4
    assert bytes_of_images == {8: 64 + ranges, 4: 64 // 2 + ranges}
    distilled = distributed_dd.load_distilled(folder)
    assert torch.equal(distilled.images, scored["distilled"])
    assert max(len(picture.unique()) for picture in distilled.images) <= 16

    assert main(["export", str(folder), "--as", "stored", "--to", str(tmp_path / "stored")]) == 0
    arrays = numpy.load(tmp_path / "stored" / "stored.npz")
    codes, low, step = (arrays[f"stored.{name}"] for name in ("codes", "low", "step"))
    assert codes.dtype == numpy.uint8 and codes.nbytes + low.nbytes + step.nbytes == 10 * bytes_of_images[4]
    levels = numpy.stack([codes // 16, codes % 16], -1).reshape(10, 1, 8, 8)
    pictures = low.reshape(10, 1, 1, 1) + levels.astype(numpy.float32) * step.reshape(10, 1, 1, 1)
    assert pictures == pytest.approx(distilled.images.numpy(), abs=1e-6)
    assert json.loads(str(arrays["form"]))["settings"] == {"kind": "quantised", "bits": 4, "per_image": 1}


def _beside_enlarged(images):
    """How far images (n, 1, 8, 8) are from being enlarged ones of 4 x 4."""
    enlarged = interpolate(torch.eye(16).reshape(16, 1, 4, 4), size=(8, 8), mode="bilinear").flatten(1)
    rows = images.flatten(1)
    return float((rows - rows @ torch.linalg.pinv(enlarged) @ enlarged).abs().max())


def test_a_diagnosis_compares_at_equal_bytes(tmp_path, capsys, monkeypatch):
    """Real images are asked about as they come out of the form; what is to beat are the report's controls."""
    file = file_with(tmp_path, {"kind": "formation"})
    few = ["diagnose.num_sets=5", "diagnose.num_draws=2", "diagnose.num_epochs=1", "diagnose.num_validation=50"]
    trained, run_fit = {}, fits.run_fit

    def watched(fit, contest):
        trained[fit.row] = fit.images
        return run_fit(fit, contest)

    monkeypatch.setattr(fits, "run_fit", watched)
    assert main(["diagnose", str(file), *few, *HERE]) == 0
    (path,) = (tmp_path / "runs" / "diagnoses").glob("*/diagnosis.json")
    record = json.loads(path.read_text())
    asked, controls = ([one["name"] for one in values] for values in (record["pairs"], record["form"].pop("controls")))
    assert len(asked) == 5 and "starting set" in asked and {*asked, *controls} == {*trained}
    assert record["form"] == {"kind": "formation", "pictures": 4}
    assert {len(trained[name]) for name in asked} == {40} and {len(trained[name]) for name in controls} == {10}
    assert all(_beside_enlarged(trained[name]) < 1e-4 for name in asked)
    assert all(_beside_enlarged(trained[name]) > 0.1 for name in controls), "pixels"
    out = capsys.readouterr().out
    assert "form: every set was stored in the form formation and read again, 4 pictures of a class in the bytes" in out
    assert "to beat: " in out and "1 real image of a class, in pixels, " in out
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


def test_a_set_of_others_is_kept_as_it_is_and_what_a_configuration_says_of_forms_is_said_to_be_left_out(
    warm_readers, tmp_path, capsys
):
    file = file_with(tmp_path, {"kind": "formation"})
    theirs = tmp_path / "theirs.npz"
    images = numpy.random.default_rng(1).normal(size=(10, 1, 8, 8)).astype(numpy.float32)
    numpy.savez(theirs, images=images, labels=numpy.arange(10), values="seen")
    note = "note: set.form of small.yaml is left out"
    assert main(["import", str(theirs), str(file), "--to", str(tmp_path / "set")]) == 0
    assert note in capsys.readouterr().out
    distilled = distributed_dd.load_distilled(tmp_path / "set")
    assert (distilled.images.numpy() == images).all() and "form" not in distilled.manifest
    assert main(["evaluate", str(theirs), str(file), "num_networks=1", "controls=[]", *HERE]) == 0
    assert note in capsys.readouterr().out
    assert main(["import", str(theirs), str(file), "set.form.kind=formation", "--to", str(tmp_path / "no")]) == 2
    assert "set.form: unknown key" in capsys.readouterr().err
    # Four pictures of a class, as a set in this form would have: their number is what the error asks for.
    numpy.savez(theirs, images=images.repeat(4, 0), labels=numpy.arange(10).repeat(4), values="seen")
    assert main(["import", str(theirs), str(file), "--to", str(tmp_path / "no")]) == 2
    assert "images_per_class=4" in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert main(["import", str(theirs), str(file), "images_per_class=4", "--to", str(tmp_path / "four")]) == 0
    numpy.savez(tmp_path / "stored.npz", **{"stored.codes": numpy.zeros((10, 1, 32)), "labels": numpy.arange(10)})
    assert main(["import", str(tmp_path / "stored.npz"), str(file), "--to", str(tmp_path / "no")]) == 5
    assert "export RUN_FOLDER --as npz" in capsys.readouterr().err
    file.write_text(file.read_text().replace("form:\n    kind: formation", "frozen: {share: 0.5}"))
    capsys.readouterr()
    assert main(["import", str(theirs), str(file), "images_per_class=4", "--to", str(tmp_path / "five")]) == 0
    assert "note: set.frozen of small.yaml is left out" in capsys.readouterr().out
