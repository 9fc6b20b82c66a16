"""The bench: how fast the service is beside the physical limit and its peers, as ratios formed side by side."""
