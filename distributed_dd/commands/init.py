"""A first configuration for one's own data."""

import os
import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

from distributed_dd.backends.local.terminal import terminal
from distributed_dd.data import DATA_SETS
from distributed_dd.data.glance import Glance
from distributed_dd.drafts.draft import Draft, draft
from distributed_dd.drafts.page import page
from distributed_dd.durable import write_text
from distributed_dd.errors import ConfigError, MissingInputError
from distributed_dd.family import did_you_mean
from distributed_dd.learning.device import device
from distributed_dd.places import displayable
from distributed_dd.presets import SUFFIX

ENDINGS = (".npz", ".safetensors")
FETCH = "data.download=true"
OWN_DATA = {"folder": "--data FOLDER", "arrays": "--data FILE.npz"}


def init(options: Namespace) -> int:
    """Look at the data, write the file, say what to type next."""
    path = options.name if options.name.suffix in (SUFFIX, ".yml") else Path(f"{options.name}{SUFFIX}")
    if os.path.lexists(path):
        raise ConfigError(str(path), "is there already", fix="another name: distributed-dd init NAME, or remove it")
    gpu = device().type != "cpu"
    drafted = draft(_data(options.data), options.method, options.ipc, gpu)
    console = terminal(soft_wrap=True)
    console.print(f"data      {_seen(drafted)}")
    where = shlex.quote(displayable(str(path)))
    missing = "" if drafted.glance.present else f" {FETCH}"
    write_text(path, page(drafted.values, _head(drafted, where + missing, gpu)))
    values = drafted.values
    what = f"{values['method']['kind']}, {_count(values['images_per_class'], 'image')} per class"
    console.print(f"written   {displayable(str(path))}: {what}, from {drafted.origin}, sized for {_machine(gpu)}")
    if missing:
        console.print(
            f"          {drafted.glance.name} is not below ./data: {FETCH} fetches it, data.root= says where it is"
        )
    console.print(f"next      distributed-dd show {where}{missing}   # settings, memory and work; starts nothing")
    console.print(f"          distributed-dd run {where}{missing}")
    return 0


def _data(text: str) -> dict[str, Any]:
    """The group ``data`` for a path or a kind; what lies at the path wins."""
    path = Path(text)
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except (OSError, ValueError):  # a name that no file can have
        is_folder = is_there = False
    if is_folder:
        return {"kind": "folder", "path": text}
    if path.suffix.lower() in ENDINGS:
        return {"kind": "arrays", "path": text}
    if is_there:
        raise ConfigError(
            "--data", f"{displayable(text)} is neither a folder nor an archive", allowed=", ".join(ENDINGS)
        )
    if text in OWN_DATA:
        raise ConfigError("--data", f"{text} needs to know where", fix=OWN_DATA[text])
    named = [kind for kind in DATA_SETS.members if kind not in OWN_DATA]
    if text not in named:
        problem = f"there is no {displayable(text)[:200]!r}{did_you_mean(text, named)}"
        raise MissingInputError("--data", problem, allowed=f"a folder, {' or '.join(ENDINGS)}, or {', '.join(named)}")
    return {"kind": text}


def _seen(drafted: Draft) -> str:
    """What was seen of the data, in a line."""
    glance = drafted.glance
    fewest, most = glance.per_class
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    images = f"{'grey' if glance.channels == 1 else 'colour'} {'training ' * (glance.train_share == 1)}images"
    line = (
        f"{glance.name}: {glance.num_classes} classes, {glance.num_images:,} {images} ({each} of a class), "
        f"{_sizes(glance)}"
    )
    return f"{line}; resized to {drafted.side} x {drafted.side}" if drafted.side else line


def _sizes(glance: Glance) -> str:
    """Width and height of pictures, as people say them."""
    smallest, largest = (f"{width} x {height}" for height, width in (glance.smallest, glance.largest))
    return largest if smallest == largest else f"{smallest} to {largest}"


def _head(drafted: Draft, arguments: str, gpu: bool) -> list[str]:
    """The comments at the top of the file."""
    shared = " and the experts" if "experts" in drafted.values else ""
    first = ["images_per_class, num_outer_steps"]
    first += [f"data.size: side of the pictures, now {drafted.side}"] if drafted.side else []
    first += ["data.num_train: training images; null takes all"] if "num_train" in drafted.values["data"] else []
    first += ["network.width", "method.image_optimizer.learning_rate, if the loss does not fall, or jumps"]
    return [
        f"{_seen(drafted)}.",
        f"A first configuration, sized for {_machine(gpu)}. Its settings are those of {drafted.origin}, which comes",
        f"with the program, with data, network{shared} fitted to these images: a start, not yet measured on them.",
        f"  distributed-dd show {arguments}",
        f"  distributed-dd run {arguments}",
        "Change first:",
        *(f"  {line}" for line in first),
        "Every other setting has a default: distributed-dd kinds lists them.",
    ]


def _machine(gpu: bool) -> str:
    return "a GPU" if gpu else "two cores"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
