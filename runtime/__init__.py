"""The front door: the names an app may use, and nothing else."""
