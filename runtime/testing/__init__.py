"""For the tests of apps: virtual time, in-memory network, and actors that can be evicted, aborted and crashed."""
