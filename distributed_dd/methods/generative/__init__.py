"""Generative distillation: a conditional GAN that a pool of networks finds alike to real images."""
