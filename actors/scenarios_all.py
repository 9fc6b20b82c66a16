"""All scenarios of the signal service: `heliograph sim run` without a file."""

from actors.scenarios import (
    bringing_back,
    following,
    forgetting,
    hibernating,
    ingesting,
    moving,
    restarting,
    slow_consumers,
)
from actors.scenarios_events import reading_events
from actors.scenarios_http import posting
from actors.scenarios_modes import changing_filters, conflating, dropping
from actors.scenarios_streams import separating
from actors.scenarios_tokens import renewing

__all__ = [
    "bringing_back",
    "changing_filters",
    "conflating",
    "dropping",
    "following",
    "forgetting",
    "hibernating",
    "ingesting",
    "moving",
    "posting",
    "reading_events",
    "renewing",
    "restarting",
    "separating",
    "slow_consumers",
]
