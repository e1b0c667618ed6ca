from distributed_dd.cli import entry_point

entry_point()
