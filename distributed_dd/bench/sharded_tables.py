"""What `distributed-dd bench sharded` prints."""

from typing import Any

from rich.table import Table

from distributed_dd.backends.local.terminal import terminal
from distributed_dd.outer.work import size as in_words


def print_tables(result: dict[str, Any]) -> None:
    """Print what `sharded.measure` gave."""
    console = terminal()
    set_bytes = result["set_bytes"]
    title = f"an update of a set of {result['set_images']:,} images, {in_words(set_bytes)}: bytes of a rank"
    table = Table("ranks", "sharding", "between updates", "sets", "in an update", "sets", "s", title=title)
    for row in result["set"]:
        idle, peak = row["idle_bytes"], row["peak_bytes"]
        table.add_row(
            str(row["ranks"]),
            row["sharding"],
            in_words(idle),
            f"{idle / set_bytes:.2f}",
            in_words(peak),
            f"{peak / set_bytes:.2f}",
            f"{row['seconds']:.2f}",
        )
    console.print(table)
    columns = ("ranks", "sharding", "s", "peak", "sums", "rows", "DeepSpeed")
    table = Table(*columns, title=f"an outer step: {result['step']['name']}; calls and bytes of a rank")
    for row in result["steps"]:
        traffic = (f"{row[f'{kind}_calls']}: {in_words(row[f'{kind}_bytes'])}" for kind in ("sum", "row", "deepspeed"))
        table.add_row(
            str(row["ranks"]), row["sharding"], f"{row['seconds']:.3f}", in_words(row["peak_bytes"]), *traffic
        )
    console.print(table)
    table = Table("ranks", "stored", "peak", "s", title=f"a deep unroll: {result['deep']['name']}")
    for row in result["stored"]:
        table.add_row(str(row["ranks"]), row["stored"], in_words(row["peak_bytes"]), f"{row['seconds']:.1f}")
    console.print(table)
    title = f"what ranks keep of each other, set of {result['set_images']:,} images: a rank's part, handed to its peer"
    table = Table("ranks", "sharding", "part", "s", title=title)
    for row in result["spares"]:
        table.add_row(str(row["ranks"]), row["sharding"], in_words(row["bytes"]), f"{row['seconds']:.3f}")
    console.print(table)
