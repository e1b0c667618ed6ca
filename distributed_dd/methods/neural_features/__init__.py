"""Distillation through a regression on neural features, whatever networks give them: a pool, or fresh ones."""
