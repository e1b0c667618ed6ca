"""The only importers of ray, deepspeed and mlflow, each beside its plain local twin."""
