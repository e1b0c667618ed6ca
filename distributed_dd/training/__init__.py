"""The one supervised training loop, and the optimisers it takes."""
