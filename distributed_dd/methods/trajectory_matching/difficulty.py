"""The real images ranked from easy to hard, by networks trained for that."""

import hashlib

import torch
from safetensors.torch import load, save
from torch import Tensor

from distributed_dd.learning.chance import generator
from distributed_dd.learning.curriculum import easy_to_hard, el2n
from distributed_dd.learning.device import device
from distributed_dd.learning.loop import Training, predict
from distributed_dd.learning.networks import initialised
from distributed_dd.methods.trajectory_matching.expert import ExpertJob
from distributed_dd.outer.ports import Cluster, Progress
from distributed_dd.trajectories.unfinished import metadata_of

PREFIX = "easy_to_hard-"


def ranking(job: ExpertJob, cluster: Cluster, progress: Progress) -> Tensor:
    """Indices (n,) of the training images, easiest first.

    Kept beside the experts: those that are added later must see the images in the same order.
    """
    folder = job.store.folder
    for name in sorted(name for name in folder.names() if name.startswith(PREFIX)):
        content = folder.read(name)
        if name == _name_of(content) and metadata_of(content).get("store") == job.store.digest:
            return load(content)["order"]
        progress.say(f"warning: {folder}/{name} is not what was written; it is made again")
        folder.remove(name)
    scores: dict[int, Tensor] = {}
    scorers = range(job.recipe.curriculum.num_scorers)
    with progress.bar("ranking the images", len(scorers)) as bar:
        for scorer, score_n in cluster.map(_scores, list(scorers), job):
            scores[scorer] = score_n
            bar.advance()
    order = easy_to_hard([scores[scorer] for scorer in scorers])
    content = save({"order": order}, {"store": job.store.digest})
    folder.write(_name_of(content), content)
    return order


def _name_of(content: bytes) -> str:
    return f"{PREFIX}{hashlib.sha256(content).hexdigest()[:16]}.safetensors"


def _scores(scorer: int, job: ExpertJob) -> Tensor:
    """EL2N (n,) of the training images by network number ``scorer``."""
    where, images = device(), job.train.images
    shape = (images.shape[1], images.shape[2], images.shape[3])
    rng = generator(job.seed, "scorer", scorer, "start")
    network = initialised(job.network, shape, job.num_classes, rng).to(where)
    recipe = job.recipe.bare(num_epochs=job.recipe.curriculum.scorer_epochs, drop=1.0)
    training = Training(network, images.to(where), job.train.targets.to(where), recipe, (job.seed, "scorer", scorer))
    training.run_to_end()
    with torch.no_grad():
        return el2n(predict(network, training.images_nCHW), training.labels).float().cpu()
