"""Trajectory matching: a student trained on the set follows a segment of an expert's trajectory."""
