"""A whole configuration from plain values and back; groups that only some methods have."""

import pytest

from distributed_dd import config
from distributed_dd.backends.local.cluster import InProcess
from distributed_dd.composition import experiment_from
from distributed_dd.errors import ConfigError
from distributed_dd.experiment import experiment_of, identity_of, lifted_groups, values_of
from distributed_dd.experiment_run import Run
from distributed_dd.family import paths_where
from distributed_dd.methods.trajectory_matching.expert import Experts
from tests.conftest import ROOT

DIGITS = ROOT / "configs" / "digits"
ONE_OF_EACH_KIND = [DIGITS / f"{name}.yaml" for name in ("datm_ipc1", "generative_ipc10", "dm_ipc1", "dc_ipc1")]
WITHOUT_EXPERTS = {file: file.stem.rpartition("_")[0] for file in ONE_OF_EACH_KIND[1:]}
KIND_OF = {"generative": "generative", "dm": "distribution_matching", "dc": "gradient_matching"}
# As every configuration had it when experts were a group of all of them.
OLD_EXPERTS = {
    "num_epochs": 100,
    "batch_size": 256,
    "drop": 1.0,
    "optimizer": {"kind": "sgd", "learning_rate": 0.01, "momentum": 0.0, "weight_decay": 0.0},
    "augment": {"kind": "dsa", "operations": ["color", "crop", "cutout", "flip", "scale", "rotate"], "shared": False},
    "precision": "float32",
    "compile": False,
    "num_experts": 100,
    "trajectory": {"kind": "full", "keep_epochs": "all", "precision": "float32"},
    "curriculum": {"kind": "everything"},
    "storage": None,
    "store": None,
    "save_every": 60.0,
}


def refused(values):
    with pytest.raises(ConfigError) as caught:
        experiment_of(values)
    return caught.value


def of_datm(experts):
    return config.read(DIGITS / "datm_ipc1.yaml") | {"experts": experts}


@pytest.mark.parametrize("file", ONE_OF_EACH_KIND, ids=lambda file: file.stem)
def test_what_is_written_into_a_run_folder_gives_the_experiment_back(file):
    e = experiment_from(file, [])
    values = values_of(e)
    assert experiment_of(values) == experiment_of(values, of_a_record=True) == e
    assert ("experts" in values) == (file not in WITHOUT_EXPERTS) and "experts" not in values["method"]
    assert list(values)[-1] == "evaluate"
    identity = identity_of(e)
    assert {"output", "results", "resume", "tracker", "checkpoint_every"} == values.keys() - identity.keys()
    assert "save_every" not in identity.get("experts", {})


def test_the_names_of_runs_of_trajectory_matching_are_those_of_older_versions():
    """Runs, stores of experts and MLflow's runs would all be looked for elsewhere, and made again."""
    for name, store in (
        ("digits-datm-ipc1-20ef9be5", "dc4264274d3a8f0d2787c6aedba9fb835e964fb388847db5c7b79fea4a00e2bf"),
        ("digits-datm-ipc10-1c5586d6", "dc4264274d3a8f0d2787c6aedba9fb835e964fb388847db5c7b79fea4a00e2bf"),
    ):
        _, method, size, _ = name.split("-")
        run = Run(experiment=experiment_from(DIGITS / f"{method}_{size}.yaml", []), cluster=InProcess())
        assert (run.name, run.shared_digest) == (name, store)
        assert run.digest.startswith(name.rpartition("-")[2])


def test_the_name_of_a_run_is_that_of_all_that_decides_about_it():
    """Where files lie and when they are saved decides nothing, how experts are trained does."""

    def name(*overrides):
        return Run(experiment=experiment_from(DIGITS / "datm_ipc1.yaml", [*overrides]), cluster=InProcess()).name

    assert name("experts.storage=elsewhere", "experts.save_every=1", "tracker=none", "output=out") == name()
    assert len({name(), name("experts.num_epochs=31"), name("seed=1"), name("method.student_steps=7")}) == 4


def test_a_gan_lies_in_the_folder_that_its_storage_names(tmp_path):
    overrides = [f"method.gan.storage={tmp_path}"]
    run = Run(experiment=experiment_from(DIGITS / "generative_ipc10.yaml", overrides), cluster=InProcess())
    assert run.prelude.store.path.parent == tmp_path


@pytest.mark.parametrize("file", WITHOUT_EXPERTS, ids=lambda file: file.stem)
def test_experts_of_a_method_that_has_none_are_refused_by_name_and_null_leaves_them_out(file):
    with pytest.raises(ConfigError) as caught:
        experiment_from(file, ["experts.num_epochs=50"])
    error = caught.value
    assert error.where == "experts" and f"method.kind={KIND_OF[WITHOUT_EXPERTS[file]]} has no experts" in error.problem
    assert error.allowed == "with method.kind trajectory_matching" and "experts=null" in error.fix
    e = experiment_from(file, [])
    assert experiment_from(file, ["experts=null"]) == experiment_of({**config.read(file), "experts": None}) == e
    assert experiment_from(file, ["experts.num_epochs=50", "experts=null"]) == e


def test_experts_that_are_null_are_those_of_the_defaults():
    assert experiment_of(of_datm(None)).method.experts == Experts()


@pytest.mark.parametrize("file", ONE_OF_EACH_KIND, ids=lambda file: file.stem)
def test_a_typo_at_the_top_level_is_explained_whatever_the_method(file):
    error = refused({**config.read(file), "expert": {"num_epochs": 50}})
    assert error.where == "expert" and "did you mean 'experts'?" in error.problem
    assert "experts" in error.allowed and "images_per_class" in error.allowed
    error = refused({**config.read(file), "imags_per_class": 3})
    assert error.where == "imags_per_class" and "did you mean 'images_per_class'?" in error.problem


@pytest.mark.parametrize(
    ("experts", "where", "says"),
    [
        ({"num_epochs": "many"}, "experts.num_epochs", "a whole number"),
        ({"num_epoch": 3}, "experts.num_epoch", "did you mean 'num_epochs'?"),
        ({"num_experts": 0}, "experts.num_experts", "1 or more"),
        ({"optimizer": {"kind": "sdg"}}, "experts.optimizer.kind", "did you mean 'sgd'?"),
        ({"trajectory": {"keep_epochs": "0-199"}}, "experts.trajectory.keep_epochs", "epoch 199 is beyond"),
        (7, "experts", "a group of keys"),
    ],
)
def test_a_mistake_among_experts_is_named_as_it_was_typed(experts, where, says):
    error = refused(of_datm(experts))
    assert error.where == where and says in str(error) and "method.experts" not in str(error)


def test_a_mistake_of_the_method_keeps_its_own_name():
    values = config.read(DIGITS / "datm_ipc1.yaml")
    error = refused({**values, "method": {**values["method"], "expert_epochs": -1}})
    assert error.where == "method.expert_epochs"
    assert refused({**values, "method": {"kind": "trajectory_machting"}}).where == "method.kind"
    assert refused({**values, "method": ["trajectory_matching"]}).where == "method"
    assert refused({**values, "method": {"kind": ["trajectory_matching"]}}).where == "method.kind"
    other = config.read(DIGITS / "dm_ipc1.yaml", ["method.experts.num_epochs=3"])
    assert refused(other).where == "method.experts", "it has none, wherever they are written"
    assert refused({key: value for key, value in values.items() if key != "method"}).where == "method"


def test_experts_in_two_places_are_refused():
    values = of_datm({"num_epochs": 40})
    error = refused({**values, "method": {**values["method"], "experts": {"num_experts": 3}}})
    assert error.where == "method.experts" and "at the top level too" in error.problem


@pytest.mark.parametrize("of_a_record", [True, False])
def test_what_an_older_version_wrote_for_a_generator_can_be_read(of_a_record):
    """It had experts in every configuration; to be run again they must be left out by hand."""
    e = experiment_from(DIGITS / "generative_ipc10.yaml", [])
    written = {**values_of(e), "experts": OLD_EXPERTS}
    if of_a_record:
        assert experiment_of(written, of_a_record=True) == e
    else:
        assert refused(written).where == "experts"
    with pytest.raises(ConfigError, match="unknown key"):
        experiment_of({**written, "expert": {}}, of_a_record=True)


def test_what_an_older_version_wrote_for_a_set_is_the_same_experiment():
    e = experiment_of(of_datm(OLD_EXPERTS))
    assert values_of(e)["experts"] == OLD_EXPERTS and experiment_of(values_of(e), of_a_record=True) == e


def test_fields_of_experts_have_the_places_where_people_write_them():
    """A sweep reads from these which fields it may not vary, and which folders its trials must find."""
    assert lifted_groups() == {"experts": ["trajectory_matching"]}
    e = experiment_from(DIGITS / "datm_ipc1.yaml", [])
    assert {"experts.storage", "experts.save_every", "output"} <= set(paths_where(e, "identity", False))
    assert {"experts.storage", "experts.store"} <= set(paths_where(e, "place", True))
    assert not any(path.startswith("method.experts") for path in paths_where(e, "identity", True))
