"""The console: what an operator sees of actors, sources and signals, and may do to them."""
