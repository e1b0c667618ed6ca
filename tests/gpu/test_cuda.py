"""The same mathematics on CUDA: pytest -m gpu."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import distributed_dd
from distributed_dd.cli import main
from distributed_dd.learning.augment import OPERATIONS, Siamese
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import Student, flatten
from distributed_dd.learning.loop import Recipe, Training
from distributed_dd.learning.networks import ConvNet, initialised
from distributed_dd.learning.optimizers import GSAM, SGD
from distributed_dd.unroll import OnDevice, OnHost
from tests.conftest import ROOT
from tests.end_to_end.test_run import HERE, ROWS, run_folder, sha_of_set

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def problem(device, dtype, width=16):
    rng = generator(0, "problem")
    network = initialised(ConvNet(2, width), (3, 16, 16), 5, rng).to(dtype)
    start = flatten(network)
    target = start + 0.05 * torch.randn(start.shape, generator=rng).to(dtype)
    images = torch.randn(12, 3, 16, 16, generator=rng).to(dtype)
    labels = torch.randn(12, 5, generator=rng).to(dtype)
    batches = [torch.randperm(12, generator=rng)[:8] for _ in range(5)]
    augment = [Siamese().draw(rng, 8) for _ in range(5)]
    given = dict(network=network, theta_start=start, theta_target=target, images=images, labels=labels)
    given = {k: v.to(device) for k, v in given.items()}
    return {**given, "learning_rate": 0.05, "batches": batches, "augment": augment}


@pytest.mark.parametrize("how", ["direct", "replayed", "detached"])
def test_the_gradient_on_cuda_is_that_on_the_cpu(how):
    there = distributed_dd.matching_gradient(**problem("cuda", torch.float64), how=how)
    here = distributed_dd.matching_gradient(**problem("cpu", torch.float64), how=how)
    for name in ("loss", "images", "labels", "learning_rate"):
        assert torch.allclose(getattr(there, name).cpu(), getattr(here, name), rtol=1e-8, atol=1e-12), name
    assert there.images.is_cuda


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_draw_is_the_same_augmentation_on_every_device(operation):
    drawn = Siamese((operation,)).draw(generator(0, operation), 6)
    images = torch.randn(6, 3, 16, 16, dtype=torch.float64, generator=generator(0, "images"))
    assert torch.allclose(drawn(images.cuda()).cpu(), drawn(images), atol=1e-12)


def test_memory_on_cuda_does_not_grow_with_student_steps():
    given = problem("cuda", torch.float32, width=64)
    given |= {"augment": None, "network": Student(given["network"])}

    def beyond_stored(steps):
        batches = [torch.arange(8)] * steps
        distributed_dd.matching_gradient(**{**given, "batches": batches})
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        distributed_dd.matching_gradient(**{**given, "batches": batches})
        stored = (steps + 1) * given["theta_start"].nbytes
        return torch.cuda.max_memory_allocated() - before - stored

    assert beyond_stored(80) <= 1.2 * beyond_stored(10)


def test_a_whole_run_on_cuda_and_again_after_its_end(tiny_yaml, capsys):
    assert main(["run", str(tiny_yaml), *HERE]) == 0
    folder = run_folder(tiny_yaml)
    distilled = distributed_dd.load_distilled(folder)
    assert not distilled.images.is_cuda and torch.isfinite(distilled.images).all()
    before = sha_of_set(folder)
    assert main(["run", str(tiny_yaml), *HERE]) == 0
    assert sha_of_set(folder) == before and "already finished" in capsys.readouterr().out
    report = json.loads((folder / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ROWS


@pytest.mark.parametrize("optimizer", [SGD(0.05, 0.9), GSAM(learning_rate=0.05)])
def test_compiled_training_on_cuda_follows_eager(optimizer):
    """Catches a CUDA graph's result overwritten by the next one before it was used."""
    images = torch.randn(70, 1, 8, 8, dtype=torch.float64, generator=generator(0, "images")).cuda()
    targets = torch.randint(3, (70,), generator=generator(0, "targets")).cuda()
    thetas = []
    for compiled in (False, True):
        layers = [torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)]
        torch.manual_seed(0)
        network = torch.nn.Sequential(*layers)
        for layer in (layers[1], layers[3]):
            layer.reset_parameters()
        recipe = Recipe(num_epochs=3, batch_size=16, optimizer=optimizer, compile=compiled)
        training = Training(network.double().cuda(), images, targets, recipe, (0, "a"))
        for _ in range(3):
            list(training.run_epoch([0.5, 1.0]))
        thetas.append(training.theta_P)
    assert torch.allclose(*thetas, rtol=1e-9)


@pytest.mark.parametrize("fast", [[], ["experts.compile=true", "experts.precision=bf16"]])
def test_experts_on_cuda_can_be_trained_in_every_precision(tiny_yaml, fast, tmp_path):
    assert main(["experts", str(tiny_yaml), *fast, "experts.batch_size=256", *HERE]) == 0
    (manifest,) = (tmp_path / "runs" / "experts").glob("*/manifest.json")
    assert all(entry["validation_accuracy"] > 0.3 for entry in json.loads(manifest.read_text())["experts"])


@pytest.mark.parametrize("zero", ["{stage: 0}", "{stage: 2}", "{stage: 3}", "{own_rows: true}"])
def test_a_rank_over_nccl_makes_the_set_of_one_process(tiny_yaml, tmp_path, zero):
    """One card holds one rank; what the collectives of several give is tested on gloo."""
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(f"{{kind: ray, engine: {{kind: deepspeed, num_ranks: 1, zero: {zero}, stored: host}}}}")
    sets = []
    for name, on in (("alone", HERE), ("rank", ["--on", str(cluster)])):
        assert main(["distill", str(tiny_yaml), f"output={tmp_path / name}", *on]) == 0
        (found,) = (tmp_path / name).glob("digits-*/distilled/last_step.safetensors")
        sets.append(load_file(found))
    assert all(torch.allclose(sets[0][name], sets[1][name], rtol=1e-3, atol=1e-4) for name in sets[0])
    (log,) = (tmp_path / "rank").glob("digits-*/ranks/rank-0.log")
    assert "cuda" in log.read_text()


@pytest.mark.parametrize("stored", [OnDevice, OnHost])
def test_what_an_unroll_stores_comes_back_with_its_bits(stored):
    """Catches a copy to pinned memory that is read before it has arrived."""
    place, thetas = stored(), [torch.randn(100_003, device="cuda") for _ in range(20)]
    for theta in thetas:
        place.push(theta)
    for theta in reversed(thetas):
        assert torch.equal(place.pop(), theta)


def test_a_generators_gradients_on_cuda_are_those_on_the_cpu(tmp_path, monkeypatch):
    """Both networks, the penalty's second derivative, batch norm, the pool; channels last only here."""
    from distributed_dd.methods.generative import pool, steps
    from distributed_dd.outer.checkpoint import Checkpoints
    from distributed_dd.unroll import Alone
    from tests.references import small_gan

    def gradients(where):
        for module in (steps, pool):
            monkeypatch.setattr(module, "device", lambda: torch.device(where))
        checkpoints = Checkpoints(tmp_path / where, "config")
        job = small_gan.job(checkpoints)
        saved = checkpoints.saved([checkpoints.write_shard(0, 0, 1, 0, job.starting())])
        caught = small_gan.Caught(Alone(), where)
        prepared = pool.Trained(pool.Span(0, 0, 2), trained.thetas_nP)
        return job.worker(saved, caught).outer_step(1, prepared), caught.gradients

    monkeypatch.setattr(pool, "device", lambda: torch.device("cpu"))
    trained, _ = pool.train_span(pool.Span(0, 0, 2), None, small_gan.job(Checkpoints(tmp_path / "pool", "config")).pool)
    (here, expected), (there, found) = gradients("cpu"), gradients("cuda")
    assert there == pytest.approx(here, rel=1e-7)
    for name, gradient in expected.items():
        assert found[name].is_cuda
        assert (found[name].cpu() - gradient).abs().max() <= 1e-7 * gradient.abs().max(), name


def test_a_generative_run_on_cuda(tmp_path):
    from tests.conftest import ROOT

    file = str(ROOT / "configs/digits/generative_ipc10.yaml")
    small = [
        "method.gan.num_steps=20",
        "num_outer_steps=20",
        "evaluate.every=10",
        "evaluate.num_epochs=5",
        "evaluate.num_epochs_full_data=1",
        "method.precision=bf16",
        "tracker=none",
        f"output={tmp_path}",
    ]
    assert main(["run", file, *small, *HERE]) == 0
    (folder,) = tmp_path.glob("digits-*")
    report = json.loads((folder / "report.json").read_text())
    assert {row["name"] for row in report["rows"]} >= {"generated_fresh", "distilled", "random_real"}


@pytest.mark.parametrize(
    "config", ["dm_ipc1", "dc_ipc10", "dsa_ipc10", "cafe_ipc1", "frepo_ipc1", "kip_ipc10", "kip-conv_ipc1"]
)
def test_methods_without_experts_match_on_cuda_what_they_match_on_the_cpu(config, tmp_path):
    """Draws are the CPU's: the first loss is the same to rounding, and nothing leaves the device by mistake."""
    losses = {}
    for name, visible in (("cuda", None), ("cpu", "")):
        command = [sys.executable, "-m", "distributed_dd", "distill", f"configs/digits/{config}.yaml", *HERE]
        command += ["num_outer_steps=3", "evaluate.every=3", "evaluate.num_epochs=2", "tracker=none"]
        environment = {**os.environ} | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
        subprocess.run([*command, f"output={tmp_path / name}"], cwd=ROOT, env=environment, check=True)
        (metrics,) = (tmp_path / name).glob("digits-*/metrics.jsonl")
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        losses[name] = [line["matching_loss" if "matching_loss" in line else "regression_loss"] for line in lines]
    assert losses["cuda"][0] == pytest.approx(losses["cpu"][0], rel=1e-3)
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.05)
