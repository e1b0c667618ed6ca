"""One run of an experiment, in its folder: what all methods share, and a file for each."""
