"""Expert trajectories on disk."""
