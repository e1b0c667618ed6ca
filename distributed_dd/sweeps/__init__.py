"""Sweeps: from a sweep file to trials, a winner for each images per class, and a report."""
