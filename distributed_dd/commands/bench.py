"""Measurements."""

from argparse import Namespace


def bench(options: Namespace) -> int:
    """Measure what was asked for."""
    if options.what == "experts":
        from distributed_dd.bench import experts

        return experts.main(as_json=options.json, quick=options.quick)
    from distributed_dd.bench import unroll

    return unroll.main(as_json=options.json, quick=options.quick)
