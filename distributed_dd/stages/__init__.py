"""Use cases, written against small ports: experts, distill, evaluate, report."""
