"""How much of the exact image gradient a truncated one has: 100 student steps on digits, windows of 10 to 100 %.

    python docs/records/2026-11-27-truncation/truncation.py RUN_FOLDER

RUN_FOLDER: a finished run of configs/digits/bptt_ipc1.yaml, whose start and result are looked at.
"""

import json
import sys
from pathlib import Path

import torch

import distributed_dd
from distributed_dd.composition import experiment_from
from distributed_dd.data.material import prepare
from distributed_dd.facets import world_of
from distributed_dd.learning.chance import generator
from distributed_dd.learning.flat import Student, flatten
from distributed_dd.learning.networks import initialised
from distributed_dd.methods.performance_matching.real_loss import RealLoss
from distributed_dd.unroll.student_rules import Momentum

NUM_STEPS, NUM_NETWORKS = 100, 5
WINDOWS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    e = experiment_from(folder / "resolved.yaml", [])
    material = prepare(e.data, e.preprocessing, e.images_per_class)
    train = material.train
    start = e.method.starting_set(world_of(e, material))
    result_of_run = distributed_dd.load_distilled(folder).tensors
    sets = {"start": start, "result": result_of_run}
    shape = tuple(train.images.shape[1:])
    result = {"num_steps": NUM_STEPS, "networks": NUM_NETWORKS, "windows": WINDOWS}
    result |= {"cosine": {}, "length": {}, "loss": {}}
    for name, tensors in sets.items():
        images, labels = tensors["images"].double(), tensors["labels"].double()
        cosines, lengths, losses = [], [], []
        for number in range(NUM_NETWORKS):
            layers = initialised(e.network, shape, 10, generator(1, "truncation", number))
            student = Student(layers).to(torch.device("cpu"), torch.float64)
            rng = generator(1, "real", number)
            pick = torch.randperm(len(train.images), generator=rng)[:512]
            real, classes = train.images[pick].double(), train.targets[pick]
            end = RealLoss(student=student, images=real, classes=classes, share=None, rows_at_once=512)
            batches = [torch.randperm(len(images), generator=rng) for _ in range(NUM_STEPS)]
            found = {
                window: distributed_dd.unrolled_gradient(
                    student,
                    flatten(layers).double(),
                    end,
                    (images, labels),
                    0.02,
                    batches,
                    rule=Momentum(),
                    first_back=NUM_STEPS - window,
                )
                for window in WINDOWS
            }
            exact = found[NUM_STEPS].images.flatten()
            parts = {window: found[window].images.flatten() for window in WINDOWS}
            cosines.append([float(torch.cosine_similarity(parts[w], exact, dim=0)) for w in WINDOWS])
            lengths.append([float(parts[w].norm() / exact.norm()) for w in WINDOWS])
            losses.append(float(found[NUM_STEPS].loss))
        for kind, values in (("cosine", cosines), ("length", lengths)):
            result[kind][name] = [round(v, 4) for v in torch.tensor(values).mean(0).tolist()]
        result["loss"][name] = round(sum(losses) / len(losses), 4)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
