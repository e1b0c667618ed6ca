"""The verbs as functions of Python, for notebooks and scripts; `distributed_dd` hands them on."""
