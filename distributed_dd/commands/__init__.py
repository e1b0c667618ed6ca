"""The verbs of the command line, a module for each group: functions that take parsed options and return the exit code.

A verb's module is imported when the verb runs: what one verb needs and cannot load does not stop another.
"""
