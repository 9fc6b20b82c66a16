"""Scenario programs recorded on the real runtime, run on this one and compared."""
