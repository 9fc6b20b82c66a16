"""A past for pictures: what the analytics of a service would have counted in the weeks before now."""

from __future__ import annotations

import math
import random
from pathlib import Path

import attrs
import structlog
import trio

from actors.analytics.analytics import DAY_S, HOUR_S, MINUTE_S, NAME
from actors.analytics.tally import Tally
from actors.app import app
from actors.settings import Settings
from runtime.node import open_node
from runtime.platform import real_platform
from runtime.storage.shared import SharedStore

DAYS = 14
SDKS = (("heliograph-js/0.1.0", 60), ("python/0.1.0", 25), ("event source", 12), ("not said", 3))
CODES = ((1000, 55), (1001, 25), (1006, 14), (4103, 3), (4105, 2), (4200, 1))


@attrs.define
class Past:
    """Days with their mornings and evenings."""

    at: float
    dice: random.Random

    def now(self) -> float:
        """The moment that is written down."""
        return self.at

    def tally(self, seconds: float) -> Tally:
        """Of so many seconds before now."""
        busy = 1.2 + math.sin(2 * math.pi * (self.at % DAY_S) / DAY_S - 2.2) + 0.2 * self.dice.random()
        opened = round(busy * seconds / 3)
        return Tally(
            opened=opened,
            reconnects=round(opened * self.dice.uniform(0.1, 0.3)),
            sessions=tuple(round(opened * share / 100) for share in (2, 4, 8, 20, 30, 20, 10, 4, 2, 0, 0, 0, 0)),
            lags=tuple(
                round(20 * busy * seconds * share * self.dice.uniform(0.8, 1.2) / 100)
                for share in (60, 20, 10, 5, 2, 1, 0.5, 0.5, 0.3, 0, 0, 0, 0, 0, 0, 0)
            ),
            closes=tuple((code, round(opened * share / 100)) for code, share in CODES),
            sdks=tuple((sdk, round(opened * share / 100)) for sdk, share in SDKS),
        )

    def event_sources(self) -> int:
        """How many are connected."""
        return round(1_200 + 900 * math.sin(2 * math.pi * (self.at % DAY_S) / DAY_S - 2.2) + 80 * self.dice.random())


def write_past(data: Path) -> None:
    """Write two weeks into a data folder that no server uses: by the hour, and the last day by five minutes."""
    trio.run(_write, data)


async def _write(data: Path) -> None:
    real = real_platform()
    end = real.now() - MINUTE_S
    past = Past(end - DAYS * DAY_S, random.Random(7))
    platform = attrs.evolve(real, now=past.now)
    log = structlog.stdlib.get_logger("heliograph")
    store = SharedStore(data, platform=platform)
    settings = Settings(sources_enabled=False)
    async with open_node(
        app, settings=settings, store=store, platform=platform, log=log, objects=data / "objects"
    ) as node:
        shard = node.env.shards.get_by_name("shard-0")
        analytics = node.env.analytics.get_by_name(NAME)
        while past.at < end:
            step = HOUR_S if past.at < end - DAY_S else 5 * MINUTE_S if past.at < end - HOUR_S else MINUTE_S
            await shard.lags()  # who has event sources is in memory
            await analytics.report("shard-0", past.event_sources(), past.tally(step))
            past.at += step
