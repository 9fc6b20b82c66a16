"""Where signals come from: schedules, sources, and the actor that asks them."""
