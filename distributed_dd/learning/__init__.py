"""How learned tensors follow their gradients: update rules, and what they keep between updates."""
