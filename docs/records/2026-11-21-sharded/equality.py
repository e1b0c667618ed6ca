"""Largest differences between ranks and one process, over every grid of ranks and every way to shard the set.

PYTHONPATH=. python equality.py > equality.json
"""

import json
import tempfile
from pathlib import Path

import torch
from distributed_dd.backends.deepspeed_ranks import DeepSpeedRanks
from distributed_dd.backends.gang import Gang
from distributed_dd.backends.ray_cluster import RayCluster
from distributed_dd.distillation.sharded import Alone
from distributed_dd.distillation.unroll import Direct, Replayed

from tests.distributed import test_same_gradient as gradients
from tests.distributed import test_same_set as sets

torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())
_, direct = gradients.gradient_of(Alone(), folder, False, False, Direct())
worker, _ = sets.alone(folder, [sets.first_shard(folder)], range(sets.NUM_STEPS))
expected = sets.after(folder, [worker.save(sets.NUM_STEPS)])
rows = []
for num_ranks, grids in ((1, [1]), (2, [1, 2]), (4, [1, 2, 4])):
    gang = Gang(None, RayCluster(num_cpus=8), DeepSpeedRanks(num_ranks), None)
    gang.gather()
    for num_groups in grids:
        row = {
            "ranks": num_ranks,
            "segments at a time": num_groups,
            "ranks to a batch": num_ranks // num_groups,
        }
        for parted in (False, True):
            _, whole = gang.call(gradients.in_rank, num_groups, folder, parted, True, Replayed())[0]
            worst = max(float((whole[n] - v).norm() / v.norm()) for n, v in direct.items())
            row[f"gradient, float64, {'parted' if parted else 'whole'}"] = worst
        for name, zero in zip(sets.NAMES, sets.STAGES, strict=True):
            here = Path(tempfile.mkdtemp())
            shards = [sets.first_shard(here)]
            answers = gang.call(sets.in_rank, num_groups, zero, here, shards, range(sets.NUM_STEPS), 5)
            row[name] = sets.largest_difference(sets.after(here, [s for _, s in answers]), expected)
        rows.append(row)
    gang.stop()
print(json.dumps(rows, indent=1))
