"""The mathematics of distillation: torch only, no files, processes, clocks or global random state."""
