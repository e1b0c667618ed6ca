"""Every shipped configuration builds, says what it costs, and fits its data set."""

import re

import pytest

from distributed_dd.composition import experiment_from
from distributed_dd.facets import estimate_lines, scale_of
from tests.conftest import ROOT

FILES = sorted((ROOT / "configs").glob("*/*_ipc*.yaml"))
OWN_PICTURES = [file for file in FILES if file.parent.name == "cifar10-jpeg"]
PUBLISHED = [file for file in FILES if file.parent.name in ("cifar10", "cifar100", "tiny_imagenet", "imagenet64")]


def test_there_is_a_file_for_every_published_row():
    names = {f"{f.parent.name}/{f.stem}" for f in PUBLISHED}
    sizes = {"cifar10": (1, 10, 50, 500, 1000), "cifar100": (1, 10, 50, 100), "tiny_imagenet": (1, 10, 50)}
    assert {f"{data}/datm_ipc{n}" for data, all_n in sizes.items() for n in all_n} <= names
    small = {"cifar10": (1, 10, 50), "cifar100": (1, 10, 50), "tiny_imagenet": (1, 10)}
    assert {f"cifar10/{m}_ipc{n}" for m in ("generative", "dim", "cgan") for n in (1, 10, 50)} <= names
    for method in ("mtt", "ftd", "tesla"):
        assert {f"{data}/{method}_ipc{n}" for data, all_n in small.items() for n in all_n} <= names


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_a_configuration_builds_and_is_what_its_name_says(file):
    e = experiment_from(file, [])
    assert file.stem == f"{e.method.name}_ipc{e.images_per_class}" and e.data.name == file.parent.name
    assert f"distributed-dd run configs/{file.parent.name}/{file.name}" in file.read_text()
    facts = e.data.facts
    assert (facts is None) == (file in OWN_PICTURES)
    assert facts is None or e.images_per_class * facts.num_classes <= facts.num_train
    assert e.num_outer_steps % e.evaluate.every == 0


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_the_cost_in_the_header_is_the_estimate(file):
    e = experiment_from(file, [])
    lines = list(estimate_lines(e, scale_of(e, e.data.facts)))
    work = float(re.search(r"work +([\d,.]+) TFLOP", "\n".join(lines)).group(1).replace(",", ""))
    header = file.read_text()
    assert f"Cost: {work / 1000:.0f} PFLOP" in header and re.search(r"disk +([\d.]+ \w+)", lines[0])[1] in header
    assert "Published: " in header and "Measured here: " in header


def test_the_papers_are_points_of_one_method():
    """MTT, FTD, TESLA and DATM differ in settings only, and so do the generative ones, and DC and DSA: no module
    asks for a method's name. Ways of scoring are named after papers."""
    for family in (("datm", "mtt", "ftd", "tesla"), ("generative", "dim", "cgan"), ("dc", "dsa")):
        papers = {p: experiment_from(ROOT / f"configs/cifar10/{p}_ipc10.yaml", []) for p in family}
        assert len({type(e.method) for e in papers.values()}) == 1
    for file in {*(ROOT / "distributed_dd").rglob("*.py")} - {ROOT / "distributed_dd/evaluation/protocols.py"}:
        code = re.sub(r'""".*?"""|#.*|setting\([^)]*\)', "", file.read_text(), flags=re.DOTALL)
        assert not re.search(r"[\"'](datm|mtt|ftd|tesla|dim|cgan)[\"']", code), file
