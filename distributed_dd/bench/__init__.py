"""Measurements that a user can repeat: distributed-dd bench."""
