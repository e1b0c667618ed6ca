"""The picture that a person looks at: start beside result, class by class, natural colours."""

import io

import torch
from torch import Tensor
from torchvision.utils import make_grid

MAX_PER_CLASS = 10
MAX_CLASSES = 20


def preview_png(
    starting: Tensor, distilled: Tensor, classes: Tensor, class_names: tuple[str, ...], title: str
) -> bytes:
    """A PNG with the starting images (n, C, H, W) and the distilled ones, pixels nominally in [0, 1].

    At most ten images of each of the first twenty classes are shown; values outside [0, 1] are cut.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [_rows_of(classes, number) for number in range(min(len(class_names), MAX_CLASSES))]
    per_class = len(shown[0])
    width = max(2.6, 0.42 * per_class + 0.6)
    figure = Figure(figsize=(2 * width, 0.42 * len(shown) + 1.0), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, images, name in zip(panels, (starting, distilled), ("start (real)", "distilled"), strict=True):
        picked = images[torch.cat(shown)].clamp(0, 1)
        cell_height, cell_width = images.shape[2] + 1, images.shape[3] + 1
        grid = make_grid(picked, nrow=per_class, padding=1, pad_value=1.0)
        panel.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest", vmin=0, vmax=1)
        panel.set_title(name, fontsize=9)
        panel.set_xticks([])
        panel.set_yticks([(row + 0.5) * cell_height for row in range(len(shown))])
        panel.set_yticklabels(class_names[: len(shown)], fontsize=7)
        panel.set_xlim(0, per_class * cell_width + 0.5)
        for side in panel.spines.values():
            side.set_visible(False)
        panel.tick_params(length=0)
    figure.suptitle(title, fontsize=9)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _rows_of(classes: Tensor, number: int) -> Tensor:
    return (classes == number).nonzero().flatten()[:MAX_PER_CLASS]
