"""The real runtime beside this one: the same programs on `workerd` and on Heliograph."""
