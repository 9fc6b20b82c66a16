"""The live signal service: a stream, its connection managers, its sources, and the client."""
