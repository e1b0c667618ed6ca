"""How DeepSpeed shards what is learned: ZeRO 0 to 3, or rows of a rank's own."""

from dataclasses import dataclass
from typing import Any, Literal

from distributed_dd.family import require, setting

WHOLE = 10**15
"""More numbers than there are."""


@dataclass(frozen=True)
class Zero:
    """How DeepSpeed shards the set (ZeRO: Rajbhandari et al., SC 2020); float32 throughout.

    In units of the set, each of W ranks holds between outer steps 2 at stage 0, 2 + 2/W at 1 and 2, 4/W
    at 3, and 2/W with ``own_rows``, where its update rule keeps one number for each (SGD). One that keeps
    two (Adam, LAMB) adds 1 at stage 0, else 1/W.
    """

    stage: Literal[0, 1, 2, 3] = setting("what is sharded: 0 nothing, 1 momenta, 2 gradients too, 3 the set too", 0)
    own_rows: bool = setting(
        "each rank has rows of its own, as a part of the model, instead of a share of all (stage 0): half "
        "the memory of stage 3, and the set itself never travels",
        False,
    )
    offload: Literal["none", "momenta", "all"] = setting(
        "kept in the host's memory: momenta and their masters (stages 1 to 3), or the set too (stage 3)",
        "none",
    )

    def __post_init__(self) -> None:
        either = "own_rows without stage and offload, or stage 3 with offload"
        require(
            not self.own_rows or self.stage == 0,
            "own_rows",
            f"with stage {self.stage}, which cuts every parameter over the ranks",
            "stage 0",
            either,
        )
        require(
            not self.own_rows or self.offload == "none",
            "offload",
            f"{self.offload} with own_rows, where every rank updates its rows on its device",
            "none",
            either,
        )
        stages = {"none": (0, 1, 2, 3), "momenta": (1, 2, 3), "all": (3,)}[self.offload]
        require(
            self.stage in stages,
            "offload",
            f"{self.offload} with stage {self.stage}, at which DeepSpeed keeps it on every rank's device",
            f"with stage {' or '.join(map(str, stages))}",
            f"zero.stage: {stages[-1]}, or offload: none",
        )

    def __str__(self) -> str:
        rows = "own rows" if self.own_rows else f"ZeRO {self.stage}"
        return rows + ("" if self.offload == "none" else f" with {self.offload} in the host's memory")

    @property
    def parted(self) -> bool:
        """Whether a rank reads only the rows that it keeps."""
        return self.own_rows or self.stage == 3


def zero_config(zero: Zero, block_numbers: int) -> dict[str, Any]:
    """DeepSpeed's configuration; what it would change silently by default is said outright.

    Args:
        block_numbers: numbers in the largest parameter.
    """
    sharding: dict[str, Any] = {"stage": zero.stage, "reduce_bucket_size": block_numbers}
    if zero.stage == 3:
        sharding |= {
            # One block at a time: nothing gathered ahead, nothing kept, nothing whole on every rank.
            "stage3_prefetch_bucket_size": 0,
            "stage3_max_reuse_distance": 0,
            "stage3_max_live_parameters": block_numbers,
            "stage3_param_persistence_threshold": 0,
            # A rule may ask for the norm of a whole tensor: its numbers must be updated in one go.
            "sub_group_size": WHOLE,
            # By default DeepSpeed puts a function of its own in the place of torch's linear, for the whole
            # process and for good, whose second derivatives are wrong once compiled: the student's too.
            "memory_efficient_linear": False,
        }
    if zero.offload != "none":
        sharding["offload_optimizer"] = {"device": "cpu"}
    if zero.offload == "all":
        sharding["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,  # 1.0 by default
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "zero_optimization": sharding,
    }
