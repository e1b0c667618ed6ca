"""The outer loop that knows no method: the contract of methods, workers, learners, checkpoints, run folders."""
