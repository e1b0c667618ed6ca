"""Measurements."""

from argparse import Namespace


def bench(options: Namespace) -> int:
    """Measure what was asked for."""
    from distributed_dd.bench import unroll

    return unroll.main(as_json=options.json, quick=options.quick)
