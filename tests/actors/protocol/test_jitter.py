"""A fleet that lost its server together does not come back together: when each client tries again is uniform."""

import random
from itertools import pairwise

import pytest

from actors.protocol.backoff import backoff_ms
from actors.protocol.client import ClientMachine
from actors.protocol.events import ClientState

CLIENTS, RECONNECTS = 1_000, 200
CRITICAL = 2.7  # of Kolmogorov's distribution at one in a million: it is compared a hundred times; the seeds are fixed


def distance(samples):
    """How far samples in [0, 1) are from uniform: the statistic of Kolmogorov and Smirnov, times the root of n."""
    ordered, n = sorted(samples), len(samples)
    return max(max((i + 1) / n - x, x - i / n) for i, x in enumerate(ordered)) * n**0.5


def delays(seed, code, count):
    """The delays of one client whose connections fail one after another, as parts of what is allowed."""
    machine, now = ClientMachine(random.Random(seed).random), 0.0
    machine.start(now)
    parts = []
    for attempt in range(count):
        (state,) = [event for event in machine.closed(code, now) if isinstance(event, ClientState)]
        assert (state.state, state.attempt) == ("reconnecting", 1 if code == 4200 else attempt + 1)
        most = 1_000 if code == 4200 else backoff_ms(attempt, 1.0)
        parts.append(state.delay_ms / most)
        now += state.delay_ms
        machine.tick(now)
    return parts


@pytest.mark.parametrize("code", [None, 1006, 4103, 4200], ids=str)
def test_200_reconnects_of_1000_clients_are_spread_evenly(code):
    fleet = [delays(f"{code} {seed}", code, RECONNECTS) for seed in range(CLIENTS)]
    assert all(0 <= part < 1 for client in fleet for part in client)
    assert distance([part for client in fleet for part in client]) < CRITICAL
    for attempt in (0, 1, 5, RECONNECTS - 1):  # all clients at the same moment
        assert distance([client[attempt] for client in fleet]) < CRITICAL
    for client in fleet[:: CLIENTS // 20]:  # and one client all the time
        assert distance(client) < CRITICAL
    lagged = [pair for client in fleet for pair in pairwise(client)]
    assert distance([(before + after) % 1 for before, after in lagged]) < CRITICAL, (
        "one delay tells nothing of the next"
    )


def test_what_is_not_uniform_is_found():
    rng = random.Random(1)
    assert distance([rng.random() for _ in range(1_000)]) < CRITICAL
    assert distance([0.5 + rng.random() / 2 for _ in range(1_000)]) > CRITICAL, "half of it is no full jitter"
    assert distance([rng.triangular() for _ in range(1_000)]) > CRITICAL
