"""What people look at: pictures and tables."""

import io

import numpy
import torch
from PIL import Image

from distributed_dd.evaluation.preview import preview_png
from distributed_dd.evaluation.report import assemble, page
from distributed_dd.evaluation.scoring import row
from distributed_dd.evaluation.tables import percent
from distributed_dd.methods import words_by_kind
from distributed_dd.outer.footprint import Footprint
from tests.references.tables import unpadded


def picture(per_class, num_classes, colour):
    classes = torch.arange(num_classes).repeat_interleave(per_class)
    start = torch.zeros(len(classes), 3, 8, 8)
    result = torch.tensor(colour).view(1, 3, 1, 1).expand_as(start)
    names = tuple(str(number) for number in range(num_classes))
    png = preview_png(start, result, classes, names, "title")
    return numpy.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def where(pixels, colour):
    return numpy.argwhere((pixels == numpy.array(colour)).all(2))


def test_the_result_stands_right_of_the_start_in_its_own_colours():
    """Catches channels in the wrong order and panels that scale their colours."""
    pixels = picture(10, 10, (1.0, 0.0, 0.0))
    black, red = where(pixels, (0, 0, 0)), where(pixels, (255, 0, 0))
    assert len(red) > 100_000 and red[:, 1].min() > pixels.shape[1] / 2
    assert (black[:, 1] < pixels.shape[1] / 2).sum() > 100_000


def test_few_images_of_many_classes_lie_in_rows_below_each_other():
    pixels = picture(1, 10, (0.0, 0.0, 1.0))
    blue = where(pixels, (0, 0, 255))
    assert blue[:, 0].min() > pixels.shape[0] / 2 and pixels.shape[1] > 2 * pixels.shape[0]


def test_a_set_whose_start_is_unknown_is_shown_alone():
    classes = torch.arange(10)
    one = torch.ones(10, 3, 8, 8) * torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    alone, both = (
        numpy.asarray(Image.open(io.BytesIO(preview_png(start, one, classes, tuple("0123456789"), "t"))))
        for start in (None, one)
    )
    assert alone.shape[1] == both.shape[1] and alone.shape[0] < 0.7 * both.shape[0]


def test_values_outside_the_range_are_cut_and_not_wrapped():
    assert len(where(picture(10, 10, (1.7, -0.4, 0.0)), (255, 0, 0))) > 100_000


def test_hundreds_of_classes_and_images_stay_one_picture_of_reading_size():
    assert max(picture(30, 120, (0.0, 1.0, 0.0)).shape) < 4000


def test_a_row_has_the_sample_standard_deviation():
    made = row("distilled", "convnet", "soft", [0.5, 0.7, 0.9])
    assert abs(made["accuracy_mean"] - 0.7) < 1e-12 and abs(made["accuracy_std"] - 0.2) < 1e-12
    assert row("x", "mlp", "hard", [0.5])["accuracy_std"] == 0.0


def report_of(rows, class_names=("ant", "a|b", "cat")):
    about = {"dataset": "digits", "method": "datm", "images_per_class": 1, "num_outer_steps": 5}
    manifest = {"outer_step": 3, "validation_accuracy": 0.25, "class_names": [*class_names]}
    return assemble(about, rows, {"experts": Footprint(1.25, 2**21)}, manifest, 540)


def own_titles():
    return words_by_kind()["trajectory_matching"].rows


def test_the_page_is_a_table_in_per_cent():
    report = report_of([row("random_real", "mlp", "hard", [0.5, 0.7])])
    assert "class_names" not in report
    text = page(report, own_titles())
    assert "| random real images | hard | mlp | 60.0 ± 14.1 | 2 |" in unpadded(text)
    assert "| experts | 1.2 | 2 |" in unpadded(text) and "25.0 %" in text and "540 images" in text


def confused():
    return {
        **row("distilled", "mlp", "hard", [0.5, 0.7]),
        "per_class": [0.5, 1.0, 0.25],
        "confusion": [[2, 1, 1], [0, 4, 0], [0, 3, 1]],
    }


def test_classes_go_by_their_names():
    text = unpadded(page(report_of([confused()]), own_titles()))
    for line in ("| ant | 50.0 | a\\|b (25.0 %) |", "| a\\|b | 100.0 | - |", "| cat | 25.0 | a\\|b (75.0 %) |"):
        assert line in text, text


def test_a_report_of_an_older_version_knows_their_numbers():
    report = report_of([confused()])
    del report["class_names"]
    assert "| 0 | 50.0 | 1 (25.0 %) |" in unpadded(page(report, own_titles()))


def test_the_spread_over_one_network_is_unknown_and_not_nothing():
    """``report.json`` keeps a 0.0 there, which people would take for certainty."""
    one, two = row("x", "mlp", "hard", [0.931]), row("x", "mlp", "hard", [0.931, 0.931])
    assert percent(one) == "93.1" and percent(two) == "93.1 ± 0.0"
    assert "| distilled | hard | mlp | 50.0 | 1 |" in unpadded(
        page(report_of([row("distilled", "mlp", "hard", [0.5])]), own_titles())
    )


def test_a_comparison_over_one_pair_of_networks_claims_no_spread():
    rows = [row("distilled", "mlp", "hard", [0.5]), row("random_real", "mlp", "hard", [0.25])]
    (line,) = [line for line in page(report_of(rows), {}).splitlines() if "control" in line]
    assert "+25.0 points for one pair of networks, of which no spread is known" in line and "±" not in line
