"""What tests share: small problems, a folder of tiny experiments, and what takes long to start."""

import shutil
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Here and in processes started from here: on a busy machine more would wait for each other."""
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTRIBUTED_DD_CACHE", str(tmp_path / "cache"))


def tiny_text(output: Path) -> str:
    """An experiment of seconds: an MLP on digits, two experts, six outer steps."""
    return f"""
images_per_class: 1
num_outer_steps: 6
output: {output}
tracker: none
checkpoint_every: 2
data: {{kind: digits}}
preprocessing: {{kind: standardise}}
network: {{kind: mlp, depth: 2, width: 16}}
experts: {{num_experts: 2, num_epochs: 4, batch_size: 64, optimizer: {{kind: sgd, learning_rate: 0.1}}}}
method:
  kind: trajectory_matching
  student_steps: 3
  expert_epochs: 1
  student_learning_rate: 0.05
  image_optimizer: {{learning_rate: 0.5}}
  label_optimizer: {{learning_rate: 0.1, momentum: 0.9}}
  rate_optimizer: {{learning_rate: 1.0e-5}}
  segments: {{kind: window, max_start_epoch: 3}}
  augment: {{kind: dsa, operations: [crop, scale, rotate]}}
evaluate:
  controls: []
  num_epochs: 3
  num_networks: 5
  num_validation_networks: 1
  every: 3
  num_epochs_full_data: 1
"""


def tiny_gan_text(output: Path) -> str:
    """A GAN of width 4 on digits, two outer steps a judge."""
    return f"""
images_per_class: 2
num_outer_steps: 6
output: {output}
tracker: none
checkpoint_every: 2
data: {{kind: digits}}
preprocessing: {{kind: standardise}}
network: {{kind: convnet, depth: 2, width: 4}}
method:
  kind: generative
  generator: {{width: 4, noise_size: 16}}
  discriminator: {{width: 4}}
  gan: {{num_steps: 4, batch_size: 8, show_every: 2}}
  batch_size: 8
  generator_optimizer: {{learning_rate: 1.0e-3}}
  pool:
    networks: [{{kind: convnet, depth: 2, width: 4}}, {{kind: mlp, depth: 2, width: 8}}]
    steps_per_network: 4
    net_steps: 2
    batch_size: 8
evaluate:
  controls: []
  num_epochs: 3
  num_networks: 2
  num_validation_networks: 1
  every: 3
  num_epochs_full_data: 1
"""


@pytest.fixture
def tiny_yaml(tmp_path: Path) -> Path:
    """`tiny_text` as a file, with its runs beside it."""
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_text(tmp_path / "runs"))
    return path


@pytest.fixture(scope="session")
def _finished_once(tmp_path_factory):
    """A finished run of the tiny experiment, which nobody changes."""
    from distributed_dd.cli import main

    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(tiny_text(folder / "runs"))
    here = str(ROOT / "configs/clusters/in_process.yaml")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DISTRIBUTED_DD_CACHE", str(folder / "cache"))
        assert main(["run", str(folder / "tiny.yaml"), "--on", here]) == 0
    return folder


@pytest.fixture
def finished(tiny_yaml: Path, _finished_once: Path) -> Path:
    """The folder of the run of `tiny_yaml`, finished: a copy, which says so in the places that its files name."""
    runs = shutil.copytree(_finished_once / "runs", tiny_yaml.parent / "runs")
    for path in runs.rglob("resolved.yaml"):
        path.write_text(path.read_text().replace(str(_finished_once), str(tiny_yaml.parent)))
    (run,) = runs.glob("digits-*-????????")
    return run


def ray_of_two_cores() -> None:
    """Be connected to a local Ray of two cores in which nothing runs: the one that is there, as a start takes seconds.

    What is left running in it by a test that failed ends with it.
    """
    import ray

    from distributed_dd.backends.ray.connection import connect

    deadline = time.monotonic() + 10
    while ray.is_initialized() and ray.available_resources().get("CPU") != 2:
        if ray.cluster_resources().get("CPU") != 2 or time.monotonic() > deadline:
            ray.shutdown()
        else:
            time.sleep(0.1)
    connect(None, 2)


@pytest.fixture
def two_cores():
    """The Ray that tests share which harm nobody in it."""
    ray_of_two_cores()


@pytest.fixture(scope="session")
def _readers():
    from tests.references.warm_reader import WarmReaders

    started = WarmReaders()
    yield started
    started.stop()


@pytest.fixture
def warm_readers(_readers, monkeypatch):
    """Files from elsewhere are read in children that are forked, rather than begun, which takes seconds each."""
    monkeypatch.setattr("distributed_dd.data.confined.subprocess", _readers)
    monkeypatch.setattr("distributed_dd.data.confined.child_python", _readers.child_python)


@pytest.fixture
def bucket(monkeypatch):
    """An object store that speaks S3, on this machine."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    s3fs.S3FileSystem.clear_instance_cache()  # or the server of an earlier test would be asked
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # What it holds is the process's, not the server's.
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    values = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "sesame",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="lab")
    yield "s3://lab"
    server.stop()
