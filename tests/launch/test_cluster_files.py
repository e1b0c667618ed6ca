"""The files that `ray up` and KubeRay read: valid, and closed to strangers."""

import copy
import re

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from distributed_dd.composition import cluster_from
from tests.conftest import ROOT

LAUNCH = ROOT / "launch"
CLUSTERS = sorted((LAUNCH / "clusters").glob("*.yaml"))
CLOUDS = [path for path in CLUSTERS if path.stem != "on_premise"]
EVERYWHERE = r"(?<![\d.])0\.0\.0\.0"
RAYJOB = LAUNCH / "kuberay" / "rayjob.yaml"


def prepared(path):
    """As `ray up` completes it."""
    return prepare_config(copy.deepcopy(yaml.safe_load(path.read_text())))


def starts(config):
    """The commands that start Ray on the head, and on workers."""
    found = []
    for kind in ("head", "worker"):
        (start,) = [c for c in config[f"{kind}_start_ray_commands"] if "ray start" in c]
        found.append(start)
    return found


def by_name(path):
    return path.stem


def test_there_is_a_file_for_each_provider():
    types = {yaml.safe_load(path.read_text())["provider"]["type"] for path in CLUSTERS}
    assert types == {"aws", "gcp", "local"}


@pytest.mark.parametrize("path", CLUSTERS, ids=by_name)
def test_ray_takes_the_file(path):
    """Catches a key that is misspelt or in the wrong place."""
    config = prepared(path)
    validate_config(config)
    head, worker = starts(config)
    assert "--head" in head and "--autoscaling-config" in head, "or no worker ever starts"
    assert "$RAY_HEAD_IP" in worker


@pytest.mark.parametrize("path", CLUSTERS, ids=by_name)
def test_strangers_stay_outside(path):
    """Catches a start command without a token, and a dashboard that others can reach."""
    config = prepared(path)
    head, worker = starts(config)
    for command in (head, worker):
        assert "RAY_AUTH_MODE=token" in command and "RAY_USAGE_STATS_ENABLED=0" in command
    assert "--dashboard-host=127.0.0.1" in head
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in command for command in config["setup_commands"])
    assert not re.search(EVERYWHERE, str(config))


@pytest.mark.parametrize("path", CLUSTERS, ids=by_name)
def test_what_is_copied_exists_and_cannot_hide_the_package(path):
    """A folder ~/distributed_dd beside the script of `ray submit` is imported in place of the package."""
    mounts = prepared(path)["file_mounts"]
    for remote, local in mounts.items():
        assert local.startswith("~") or (ROOT / local).exists(), local
        assert not remote.startswith("~/distributed_dd"), remote
    assert {"distributed_dd", "configs", "pyproject.toml"} <= set(mounts.values())
    needed = re.findall(r'(?:readme = |license-files = \[)"([^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert set(needed) <= set(mounts.values()), "pip install -e fails without them"


@pytest.mark.parametrize("path", CLOUDS, ids=by_name)
def test_a_cloud_costs_little_when_idle(path):
    """Catches GPUs that start without work or stay after it, and those at the full price."""
    config = prepared(path)
    types = dict(config["available_node_types"])
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}, "a task on the head would spare no GPU node"
    assert 0 < config["idle_timeout_minutes"] <= 15 and types
    for worker in types.values():
        assert worker["min_workers"] == 0 and 0 < worker["max_workers"] <= config["max_workers"]
        told = str(worker["node_config"])
        assert "'MarketType': 'spot'" in told or "'preemptible': True" in told


def test_on_premise_ends_no_ray_of_others():
    config = prepared(LAUNCH / "clusters" / "on_premise.yaml")
    commands = [c for key, value in config.items() if key.endswith("_commands") for c in value]
    assert not any("ray stop" in command for command in commands)
    assert all("own_ray.sh start" in command for command in starts(config))
    assert "RAY_enable_autoscaler_v2=0" in starts(config)[0], "the second counts the head as a worker"


def test_no_file_holds_a_token():
    """Catches one that was pasted: Ray's are 64 hexadecimal digits."""
    for path in LAUNCH.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            text = path.read_text()
            assert not re.search(r"[0-9a-fA-F]{32,}", text), path
            assert not re.search(r"RAY_AUTH_TOKEN\s*[=:]", text), path


def test_tasks_of_a_growing_cluster_wait_for_its_nodes():
    """Catches a cluster file that would run on the head's cores, or refuse before the first node is up."""
    cluster = cluster_from(ROOT / "configs" / "clusters" / "gpu_workers.yaml")
    assert cluster.gpus_per_task == 1 and cluster.engine.gpus_per_rank == 1
    assert cluster.wait_for_nodes >= 600


def documents():
    found = {document["kind"]: document for document in yaml.safe_load_all(RAYJOB.read_text())}
    assert set(found) == {"PersistentVolumeClaim", "NetworkPolicy", "RayJob"}
    return found


def pods():
    """The pod templates of the RayJob by what they are for."""
    spec = documents()["RayJob"]["spec"]
    cluster = spec["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    head = cluster["headGroupSpec"]["template"]
    return {"submitter": spec["submitterPodTemplate"], "head": head, "workers": workers["template"]}


def test_the_rayjob_ends_and_grows():
    """Catches a cluster that outlives its run, and one that never grows or shrinks."""
    found = documents()
    assert found["RayJob"]["apiVersion"] == "ray.io/v1"
    spec = found["RayJob"]["spec"]
    assert spec["shutdownAfterJobFinishes"] is True and 0 < spec["ttlSecondsAfterFinished"] <= 3600
    assert " distributed-dd run " in f" {spec['entrypoint']} "
    cluster = spec["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == 0 == workers["replicas"] and workers["maxReplicas"] >= 1
    (container,) = pods()["workers"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_rayjob_stores_where_all_pods_see_it():
    claim = documents()["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("head", "workers"):
        pod = pods()[name]["spec"]
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert mount == {"name": volume["name"], "mountPath": "/shared"}
    assert "output=/shared/" in documents()["RayJob"]["spec"]["entrypoint"]


def test_the_rayjob_is_closed_to_strangers():
    """Catches a dashboard behind an ingress or a public service, and pods that the policy forgets."""
    found = documents()
    cluster = found["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "distributed-dd-token"}
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 54, 0)
    head = cluster["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP" and head["enableIngress"] is False
    assert not re.search(EVERYWHERE, str(found))
    policy = found["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress"] and "ports" not in str(policy)
    (rule,) = policy["ingress"]
    labels = policy["podSelector"]["matchLabels"]
    assert {"podSelector": {"matchLabels": labels}} in rule["from"] and len(rule["from"]) == 2
    for name, pod in pods().items():
        assert labels.items() <= pod["metadata"]["labels"].items(), name
    images = {pod["spec"]["containers"][0]["image"] for pod in pods().values()}
    assert len(images) == 1


def test_the_image_has_the_ray_of_the_rayjob():
    """Ray refuses workers and clients of another version."""
    version = documents()["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"rayproject/ray:{version}-" in (LAUNCH / "kuberay" / "Dockerfile").read_text()
    assert f"ray=={version}\n" in (ROOT / "constraints.txt").read_text()
