"""Measurements."""

import importlib
from argparse import Namespace


def bench(options: Namespace) -> int:
    """Measure what was asked for."""
    topic = importlib.import_module(f"distributed_dd.bench.{options.what}")
    return topic.main(as_json=options.json, quick=options.quick)
