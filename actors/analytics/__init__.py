"""What became of connections over hours and days: counted by the shards, kept by an actor of its own."""
