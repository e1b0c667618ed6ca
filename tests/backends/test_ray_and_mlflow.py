"""The Ray and MLflow backends, for real, on this machine."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.backends.mlflow.description import Description
from distributed_dd.backends.mlflow.tracker import MlflowTracker, never_stops_a_run
from distributed_dd.backends.ray.cluster import RayCluster
from distributed_dd.backends.ray.node_meters import NodeMeters
from distributed_dd.cli import main
from distributed_dd.data import Images
from distributed_dd.durable import sha256_of
from distributed_dd.errors import ConfigError, UserError
from distributed_dd.outer.environment import commit
from tests.conftest import ROOT, ray_of_two_cores

NOTHING = Description(experiment="e", name="r", parameters={}, tags={})


@pytest.fixture(scope="module")
def local_ray():
    import ray

    ray_of_two_cores()

    # Workers cannot import this test module by name.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return RayCluster(num_cpus=2)


def square(task, shared):
    return shared + task * task


def refuse(task, shared):
    raise ConfigError("task", f"refused {task}")


def threads(task, shared):
    import torch

    return torch.get_num_threads()


def how_shared(task, shared):
    """Where the images lie in memory, their sum, and which object of which process they are."""
    at, where = shared.images.data_ptr(), ""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(bound, 16) for bound in line.split()[0].split("-"))
        where = line if first <= at < last else where
    return where, shared.images.double().sum(), (os.getpid(), id(shared))


def visible_gpus(task, shared):
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def die(task, shared):
    os.kill(os.getpid(), 9)


def die_once(task, shared):
    marker = Path(shared) / f"died-{task}"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), 9)
    return task


def test_ray_and_its_twin_give_the_same_answers(local_ray):
    tasks = list(range(20))
    assert dict(local_ray.map(square, tasks, 100)) == dict(InProcess().map(square, tasks, 100))


def test_a_user_error_in_a_task_arrives_as_itself(local_ray):
    with pytest.raises(ConfigError, match="refused 3"):
        list(local_ray.map(refuse, [3], None))


def test_a_task_has_as_many_threads_as_cores(local_ray):
    assert dict(local_ray.map(threads, [0], None)) == {0: 1}


def test_a_killed_worker_is_replaced_and_its_task_repeated(local_ray, tmp_path):
    assert dict(local_ray.map(die_once, [0, 1, 2], str(tmp_path))) == {0: 0, 1: 1, 2: 2}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_task_that_fits_nowhere_is_refused(local_ray):
    list(local_ray.map(square, [1], 0))
    with pytest.raises(UserError, match="8 GPU, and no node"):
        list(RayCluster(gpus_per_task=8).map(square, [1], 0))
    with pytest.raises(UserError, match=r"wants 3 CPU, and no node has that \(at most 2 CPU"):
        list(RayCluster(cpus_per_task=3).map(square, [1], 0))


def test_nodes_that_are_still_to_come_are_asked_for(local_ray, monkeypatch):
    """An autoscaler sees tasks that wait, and here none waits before a node is there: both would wait."""
    asked: list[list] = []
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", lambda bundles: asked.append(bundles))
    with pytest.raises(UserError, match="no node has that"):
        list(RayCluster(cpus_per_task=3, gpus_per_task=0.25, wait_for_nodes=2).map(square, [1], 0))
    assert asked == [[{"CPU": 3, "GPU": 1}], []], "and the wish is withdrawn, or the node would never go"


def test_images_are_shared_by_the_tasks_of_a_node_and_read_once(local_ray):
    """Catches a copy of the data set for every task: at scale, gigabytes for each worker."""
    images = Images(torch.randn(1000, 3, 16, 16), torch.zeros(1000, dtype=torch.int64))
    found = dict(local_ray.map(how_shared, list(range(8)), images))
    total = images.images.double().sum()
    assert all("plasma" in where and torch.isclose(s, total) for where, s, _ in found.values())
    places = {place for _, _, place in found.values()}
    assert len(places) <= 2, "one for each worker process, however many tasks it ran"


def test_a_task_without_a_gpu_sees_none(local_ray):
    assert dict(local_ray.map(visible_gpus, [0], None)) == {0: ""}


def test_an_address_where_nobody_listens_is_refused_at_once(tiny_yaml, monkeypatch, capsys):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    started = time.monotonic()
    assert main(["experts", str(tiny_yaml)]) == 3
    assert "Ray cluster 127.0.0.1:9: cannot be reached" in capsys.readouterr().err
    assert time.monotonic() - started < 30, "Ray's own error comes after minutes"


def test_a_cluster_that_once_ran_here_is_not_waited_for():
    """Ray remembers the last one in a file, and takes it for the answer when no address is given."""
    code = "from distributed_dd.backends.ray.connection import connect; connect(None, 1)"
    command = [sys.executable, "-c", code]
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:  # sockets: short
        remembered = Path(folder) / "ray" / "ray_current_cluster"
        remembered.parent.mkdir()
        remembered.write_text("127.0.0.1:9")
        environment = {**os.environ, "RAY_TMPDIR": folder}
        environment.pop("RAY_ADDRESS", None)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_worker_that_dies_again_and_again_is_one_error(local_ray):
    with pytest.raises(UserError, match="died 2 times"):
        list(RayCluster(max_retries=1).map(die, [0], None))


def test_experts_on_ray_and_in_process_are_bit_identical_at_one_thread(tiny_yaml, tmp_path, local_ray):

    here = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
    assert main(["experts", str(tiny_yaml), f"output={tmp_path / 'a'}"]) == 0
    assert main(["experts", str(tiny_yaml), f"output={tmp_path / 'b'}", *here]) == 0
    hashes = [{p.name: sha256_of(p) for p in (tmp_path / side / "experts").rglob("*.safetensors")} for side in "ab"]
    assert hashes[0] == hashes[1] and len(hashes[0]) == 2


def test_mlflow_holds_the_run_and_a_resumed_one_goes_on_in_it(tmp_path):
    from mlflow import MlflowClient

    said: list[str] = []

    def tracker():
        return MlflowTracker(
            tmp_path / "mlflow.db",
            tmp_path / "tracker.json",
            Description(experiment="exp/a", name="run-1", parameters={"seed": 0}, tags={"dataset": "d"}),
            said.append,
        )

    first = tracker()
    for step in (1, 2):
        first.metrics(step, {"matching_loss": 1.0 / step})
    first._flush()
    # Killed here; the next process repeats step 2 and goes on.
    second = tracker()
    for step in (2, 3):
        second.metrics(step, {"matching_loss": 1.0 / step})
    second.end("FINISHED")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("exp/a").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params == {"seed": "0"}
    history = client.get_metric_history(run.info.run_id, "matching_loss")
    assert [m.step for m in history] == [1, 2, 3] and not said


def test_a_run_that_began_without_its_sweep_is_below_it_later(tmp_path):
    """A trial may reach the server while the sweep that made it does not; what people set stays."""
    from mlflow import MlflowClient

    def tracker(**tags):
        place = tmp_path / "mlflow.db", tmp_path / "tracker.json"
        return MlflowTracker(*place, Description(experiment="exp/a", name="trial", parameters={}, tags=tags), print)

    first = tracker(role="trial", outcome="unknown")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.set_tag(first.run_id, "outcome", "finished")
    tracker(role="trial", outcome="unknown", **{"mlflow.parentRunId": "the sweep's"})
    tags = client.get_run(first.run_id).data.tags
    assert tags["mlflow.parentRunId"] == "the sweep's" and tags["outcome"] == "finished"


def test_a_failing_tracker_warns_once_and_the_run_goes_on(tiny_yaml, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/mlflow.db")
    here = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
    assert main(["run", str(tiny_yaml), "tracker=mlflow", *here]) == 0
    assert capsys.readouterr().out.count("MLflow failed") == 1


def test_a_password_in_the_tracking_address_is_told_to_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuch://ann:sesame@host/db")
    said: list[str] = []
    MlflowTracker(tmp_path / "m.db", tmp_path / "tracker.json", NOTHING, said.append)
    assert len(said) == 1 and "sesame" not in said[0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:////{tmp_path}/sesame.db")
    MlflowTracker(tmp_path / "m.db", tmp_path / "tracker.json", NOTHING, said.append)
    assert "sesame" not in (tmp_path / "tracker.json").read_text() and len(said) == 1


def test_a_whole_run_is_in_mlflow_with_pictures_and_artefact(tiny_yaml, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    here = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
    assert main(["run", str(tiny_yaml), "tracker=mlflow", *here]) == 0
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("distributed_dd/digits/datm")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["images_per_class"] == "1" and run.data.params["network.kind"] == "mlp"
    assert "test_accuracy_distilled" in run.data.metrics
    names = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert {"distilled", "images", "report.json", "report.md", "resolved.yaml"} <= names
    (folder,) = (tmp_path / "runs").glob("digits-*")
    assert [*json.loads((folder / "tracker.json").read_text())["runs"].values()] == [run.info.run_id]
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.digest == run.data.tags["data_sha256"][:16] and given.dataset.name == "digits"
    assert [run.data.params[name] for name in ("T_minus", "T_plus", "N")] == ["0", "3", "3"]
    assert len(run.data.params) < 30, "pictures stay in sight beside them"
    assert run.data.tags["mlflow.note.content"] == (folder / "report.md").read_text()
    assert run.data.tags["mlflow.source.name"] == "distributed-dd"
    assert run.data.tags.get("mlflow.source.git.commit") == commit()
    each = client.get_metric_history(run.info.run_id, "test_accuracy_of_each_network_distilled")
    report = json.loads((folder / "report.json").read_text())
    assert [m.value for m in each] == pytest.approx(report["rows"][0]["accuracies"], rel=1e-5)
    assert [m for m in run.data.metrics if "_std_" in m] == ["test_accuracy_std_distilled"]


def test_a_description_is_cut_at_a_line_and_says_where_the_rest_is(tmp_path):
    tracker = MlflowTracker(tmp_path / "mlflow.db", tmp_path / "tracker.json", NOTHING, print)
    row = {"name": "distilled", "accuracy_mean": 0.5, "accuracy_std": 0.0, "num_networks": 1, "accuracies": [0.5]}
    tracker.report({"rows": [row]}, "a line of a page\n" * 1000)
    note = tracker.client.get_run(tracker.run_id).data.tags["mlflow.note.content"]
    assert note.count("a line of a page\n") > 100 and note.endswith("report.md, among the artefacts.")


@pytest.mark.parametrize("reachable", [False, True])
def test_runs_that_mlflow_missed_are_told_later_and_once(tiny_yaml, tmp_path, monkeypatch, reachable, capsys):
    """A server that was away, or went away in the middle; metrics.jsonl has everything."""
    from mlflow import MlflowClient

    here = ["--on", str(ROOT / "configs/clusters/in_process.yaml")]
    if not reachable:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/mlflow.db")
    else:
        real = MlflowTracker.picture

        def goes_away(self, name, step, png):
            return real(self, name, step, png) if step < 3 else 1 / 0

        monkeypatch.setattr(MlflowTracker, "picture", never_stops_a_run(goes_away))
    assert main(["run", str(tiny_yaml), "tracker=mlflow", *here]) == 0
    assert "MLflow failed" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for _ in range(2):
        assert main(["import", str(tmp_path / "runs")]) == 0
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("distributed_dd/digits/datm").experiment_id])
    history = client.get_metric_history(run.info.run_id, "matching_loss")
    assert [m.step for m in history] == [1, 2, 3, 4, 5, 6] and run.info.status == "FINISHED"
    assert "test_accuracy_distilled" in run.data.metrics
    assert {"distilled", "report.json"} <= {a.path for a in client.list_artifacts(run.info.run_id)}


def test_a_folder_without_runs_cannot_be_told(tmp_path, capsys):
    assert main(["import", str(tmp_path)]) == 3
    assert "holds no runs" in capsys.readouterr().err


def test_a_run_that_somebody_deleted_is_begun_anew(tmp_path):
    said: list[str] = []
    trackers = []
    for _ in range(2):
        tracker = MlflowTracker(tmp_path / "m.db", tmp_path / "tracker.json", NOTHING, said.append)
        tracker.metrics(1, {"matching_loss": 1.0})
        tracker.end("FINISHED")
        trackers.append(tracker.run_id)
        tracker.client.delete_run(tracker.run_id)
    assert not said and len(set(trackers)) == 2


def test_the_nodes_are_metered(tmp_path, local_ray):
    """Names as MLflow's page of system metrics wants them; this node by hand, others by an actor there."""
    local_ray.connect()
    tracker = MlflowTracker(tmp_path / "m.db", tmp_path / "tracker.json", NOTHING, print)
    tracker.system(NodeMeters().read())
    found = tracker.client.get_run(tracker.run_id).data.metrics
    assert all(name.startswith("system/") for name in found)
    assert any(name.endswith("_cpu_utilization_percentage") for name in found)
    memory = next(value for name, value in found.items() if name.endswith("memory_usage_megabytes"))
    assert memory > 100


@pytest.mark.slow
def test_nodes_elsewhere_are_metered_too(monkeypatch):
    """Two raylets beside the driver's: three nodes, each with its own name and figures."""
    code = (
        "import json, ray; from distributed_dd.backends.ray.local_nodes import local_nodes\n"
        "from distributed_dd.backends.ray.node_meters import NodeMeters\n"
        "with local_nodes(2, 1) as address:\n"
        "    ray.init(address=address, log_to_driver=False)\n"
        "    meters = NodeMeters(); found = meters.read(); meters.stop(); print(json.dumps(found))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    found = json.loads(out.stdout.splitlines()[-1])
    assert len([name for name in found if name.endswith("_cpu_utilization_percentage")]) == 3, out.stderr
