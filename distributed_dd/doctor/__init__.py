"""What of this machine and this installation a run depends on: what `distributed-dd doctor` looks at.

Nothing slow is loaded: torch alone is imported, as nobody else knows what it can use.
"""
