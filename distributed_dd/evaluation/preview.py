"""The picture that a person looks at: start beside result, class by class, natural colours."""

import torch
from torch import Tensor

from distributed_dd.evaluation.lettering import LONGEST_TITLE, as_png, lettered

MAX_PER_CLASS = 10
MAX_CLASSES = 20
INCHES_PER_IMAGE = 0.42
INCHES_PER_LETTER, SHORT_NAME = 0.06, 10


def preview_png(
    starting: Tensor | None,
    distilled: Tensor,
    classes: Tensor,
    class_names: tuple[str, ...],
    title: str,
    name: str = "distilled",
) -> bytes:
    """A PNG of the starting images (n, C, H, W), if any, beside the distilled, pixels nominally in [0, 1].

    At most ten images of each of the first twenty classes are shown; values outside [0, 1] are cut.
    Classes are rows and the two sets stand side by side; where there are few images of each class,
    classes are columns and the result stands below the start.
    """
    from matplotlib.figure import Figure
    from torchvision.utils import make_grid

    names = [lettered(name) for name in class_names[:MAX_CLASSES]]
    rows_nk = torch.stack([_rows_of(classes, number) for number in range(len(names))])
    per_class = rows_nk.shape[1]
    flat = 2 * per_class < len(names)  # few images of many classes
    longest = max(map(len, names))
    tilt = 30 if longest > 6 else 0  # long names would run into each other
    beside = 0.6 + INCHES_PER_LETTER * max(0, longest - SHORT_NAME)
    if flat:
        rows_nk = rows_nk.T
    sets = [] if starting is None else [(starting, "start")]
    sets.append((distilled, name))
    width, height = (INCHES_PER_IMAGE * count for count in reversed(rows_nk.shape))
    if flat:
        below = (0.85 if tilt else 0.55) + (beside - 0.6) / 2
        figure = Figure(figsize=(width + beside, len(sets) * (height + below) + 0.3), dpi=150, layout="constrained")
        panels = figure.subplots(len(sets), 1, squeeze=False).flatten()
    else:
        figure = Figure(figsize=(len(sets) * (width + beside), height + 1.0), dpi=150, layout="constrained")
        panels = figure.subplots(1, len(sets), squeeze=False).flatten()
    for panel, (images, name) in zip(panels, sets, strict=True):
        grid = make_grid(images[rows_nk.flatten()].clamp(0, 1), nrow=rows_nk.shape[1], padding=1, pad_value=1.0)
        panel.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest", vmin=0, vmax=1)
        panel.set_title(lettered(name), fontsize=9)
        cell = images.shape[3 if flat else 2] + 1
        middles = [(place + 0.5) * cell for place in range(len(names))]
        panel.set_xticks(middles if flat else [], names if flat else [], fontsize=7, rotation=tilt)
        panel.set_yticks([] if flat else middles, [] if flat else names, fontsize=7)
        for side in panel.spines.values():
            side.set_visible(False)
        panel.tick_params(length=0)
    figure.suptitle(lettered(title, LONGEST_TITLE), fontsize=9)
    return as_png(figure)


def _rows_of(classes: Tensor, number: int) -> Tensor:
    return (classes == number).nonzero().flatten()[:MAX_PER_CLASS]
