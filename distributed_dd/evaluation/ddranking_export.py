"""A set as DD-Ranking (arXiv 2505.13300; package ``ddranking`` 0.2) reads it, and the call to make."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distributed_dd.durable import write_bytes, write_text
from distributed_dd.evaluation.distilled_set import DistilledSet, pictures_per_class
from distributed_dd.evaluation.rows import is_soft

IMAGES, LABELS, RATE, CALL = "images.pt", "labels.pt", "lr.pt", "call_ddranking.py"
NAMES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "tiny_imagenet": "TinyImageNet"}
SOFT = """from ddranking.metrics import LabelRobustScoreSoft as Score

LABELS = dict(
    soft_label_mode="S",  # one label to an image
    soft_label_criterion="sce",
    loss_fn_kwargs=dict(temperature=1.0, scale_loss=False),
    # Soft labels of random images come from this teacher: train it first, or fetch it from the project.
    teacher_dir="./teacher_models",
    teacher_model_names=["ConvNet-3"],
)
GIVEN = dict(soft_labels=torch.load("labels.pt"))"""
HARD = """from ddranking.metrics import LabelRobustScoreHard as Score

LABELS = {}
GIVEN = dict(hard_labels=torch.load("labels.pt"))"""
TEXT = '''"""DD-Ranking's label-robust score of the set in this folder: python call_ddranking.py, in this folder.

pip install ddranking==0.2.0. Accuracies there are in per cent, and the score is taken of per cent as they are: divide
differences by 100 before the exponential to have a score in [0, 1], as the paper defines it.
The set's images are preprocessed: {preprocessing}. DD-Ranking preprocesses test images in its own way (its constants of
mean and standard deviation, or kornia's ZCA with use_zca); where the two differ, so do accuracies.
{note}"""

import torch
{imports}

score = Score(
    dataset="{dataset}",
    real_data_path="./datasets",
    ipc={per_class},
    model_name="ConvNet-3",
    im_size=({height}, {width}),
    use_zca={zca},
    data_aug_func="dsa",
    aug_params=dict(
        flip=0.5, rotate=15.0, saturation=2.0, brightness=1.0, contrast=0.5, scale=1.2, crop_pad=0.125, cutout=0.5,
        siamese=False, latestseed=-1,
    ),
    num_epochs={epochs},
    step_size={step},
    random_data_format="tensor",
    eval_full_data=True,
    num_eval=5,
    device="cuda" if torch.cuda.is_available() else "cpu",
    **LABELS,
)
print(score.compute_metrics(image_tensor=torch.load("images.pt"), syn_lr=torch.load("lr.pt"), **GIVEN))
'''


def as_ddranking(distilled: DistilledSet, folder: Path) -> None:
    """``images.pt``, ``labels.pt`` (logits where labels are soft, else classes), ``lr.pt``, and a script with the call.

    Images are sorted by class: DD-Ranking takes the classes of hard labels from their places.
    """
    manifest, soft = distilled.manifest, is_soft(distilled.labels)
    by_class = distilled.targets.argsort(stable=True)
    labels = distilled.labels if soft else distilled.targets
    tensors = {IMAGES: distilled.images[by_class], LABELS: labels[by_class]}
    tensors[RATE] = torch.tensor(distilled.learning_rate)
    for name, tensor in tensors.items():
        write_bytes(folder / name, _saved(tensor))
    write_text(folder / CALL, _call(manifest, soft))


def _call(manifest: dict[str, Any], soft: bool) -> str:
    channels, height, width = manifest["image_shape"]
    name = manifest["dataset"]["name"]
    known = name in NAMES and channels == 3
    note = "" if known else f"DD-Ranking has no data set {name}: enter it in its get_dataset, for three channels.\n"
    epochs = int(manifest["evaluation"].get("num_epochs", 1000))
    return TEXT.format(
        preprocessing=manifest["preprocessing"].get("kind", "as the manifest says"),
        note=note,
        imports=SOFT if soft else HARD,
        dataset=NAMES.get(name, "YOUR_DATA_SET"),
        per_class=pictures_per_class(manifest),
        height=int(height),
        width=int(width),
        zca=manifest["preprocessing"].get("kind") == "zca",
        epochs=epochs,
        step=epochs // 2 + 1,
    )


def _saved(tensor: Tensor) -> bytes:
    content = io.BytesIO()
    torch.save(tensor.clone(), content)
    return content.getvalue()
