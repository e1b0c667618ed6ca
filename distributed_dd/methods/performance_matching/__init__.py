"""Bilevel distillation: the loss on real images at the end of a student's training, differentiated by the set."""
