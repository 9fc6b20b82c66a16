"""The address floor: names to ids to live actors, alarms; the only code that starts an actor."""
