"""The commands on data at rest: look at it, bring it back, copy it."""
