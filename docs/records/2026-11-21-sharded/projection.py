"""What an outer step of CIFAR-10 at 1,000 images per class would take on many GPUs: arithmetic alone.


python docs/records/2026-11-21-sharded/projection.py
"""

WORK = 1_217_888e12 / 10_000  # operations of an outer step (distributed-dd show)
STEPS, BATCH, NUM_PARAMETERS, ROW = 100, 1000, 320_010, (3 * 32 * 32 + 10) * 4
GPU = 20e12  # sustained, operations a second
LINKS = {"NVLink, 150 GB/s, 15 us": (150e9, 15e-6), "InfiniBand, 20 GB/s, 40 us": (20e9, 40e-6)}


def seconds(group_size, bandwidth, latency):
    """Compute, sums of P numbers, rows: of an outer step of one segment over a group of ranks."""
    compute = WORK / GPU / group_size
    ring = 2 * (group_size - 1) / group_size * NUM_PARAMETERS * 4 / bandwidth
    sums = (2 * STEPS - 1) * (ring + latency) if group_size > 1 else 0
    rows = 3 * STEPS * (BATCH / group_size * ROW / bandwidth + latency) if group_size > 1 else 0
    return compute, sums, rows


for name, link in LINKS.items():
    print(
        f"\n{name}\n| ranks to a batch | compute | sums | rows | outer step | speed-up | efficiency |\n"
        + "|---" * 7
        + "|"
    )
    alone = sum(seconds(1, *link))
    for size in (1, 4, 8, 16, 32, 64):
        parts = seconds(size, *link)
        speed = alone / sum(parts)
        told = " | ".join(f"{part:.3f} s" for part in (*parts, sum(parts)))
        print(f"| {size} | {told} | {speed:.1f} | {100 * speed / size:.0f} % |")
