"""Counted bytes of one outer step at 20 and 200 student steps, beyond the stored student parameters."""

import json

import torch

from distributed_dd.learning.flat import Student, flatten
from distributed_dd.learning.networks import ConvNet
from distributed_dd.outer.live_bytes import peak_live_bytes
from distributed_dd.unroll import STUDENT_RULES, At, Direct, Matching, Measured, Problem, Replayed, Whole

BATCH, REAL, WIDTH, SIDE = 10, 128, 32, 32


def outer_step(end: str, rule: str, num_steps: int, unroll: object) -> int:
    """Peak bytes of live tensors that the step makes, less what it stores of each student step."""
    torch.manual_seed(0)
    network = ConvNet(depth=3, width=WIDTH).build((1, SIDE, SIDE), 10)
    student, start = Student(network), flatten(network)
    real, classes = torch.randn(REAL, 1, SIDE, SIDE), torch.randn(REAL, 10)
    ends = {
        "matching": Matching.between(start, start + 0.01 * torch.randn_like(start)),
        "real loss": Measured(lambda theta_P: student.loss(theta_P, real, classes)),
    }
    member = STUDENT_RULES.members[rule]()

    def step() -> None:
        unroll(
            Problem(
                student=student,
                theta_start_P=start,
                ends=At({num_steps: ends[end]}),
                rows=Whole((images, labels), [torch.arange(BATCH)] * num_steps),
                learning_rate=torch.tensor(1e-3),
                augment=[lambda batch: batch] * num_steps,
                rule=member,
            )
        )

    images, labels = torch.randn(BATCH, 1, SIDE, SIDE), torch.randn(BATCH, 10)
    stored = num_steps * member.num_kept * start.nbytes if isinstance(unroll, Replayed) else 0
    return peak_live_bytes(step) - stored


def main() -> None:
    """Print one row for each end loss, rule and way."""
    for end in ("matching", "real loss"):
        for rule in ("sgd", "adam"):
            for way in (Replayed(), Direct()):
                row = {steps: outer_step(end, rule, steps, way) for steps in (20, 200)}
                print(json.dumps({"end": end, "rule": rule, "unroll": type(way).__name__.lower(), **row}), flush=True)


if __name__ == "__main__":
    main()
