"""The alert bot, killed in the middle: every alert counts once at the other side."""

from __future__ import annotations

import pytest

from tests.browser.serving import Server
from tests.examples.serving import EXAMPLES, Webhook, process
from tests.examples.waiting import wait_until

KILLS = 2


@pytest.mark.real
def test_every_alert_counts_once_across_kills_of_the_bot_and_refusals_of_the_webhook(tmp_path):
    server, webhook = Server(tmp_path / "data"), Webhook()
    server.start()
    sent: list[str] = []

    def publish(count: int) -> None:
        for number in range(len(sent), len(sent) + count):
            server.post(
                {"type": "price.tick", "entity": f"pair-{number}", "data": {"pct": 1.0}},
                {"type": "price.tick", "entity": f"pair-{number}", "data": {"pct": 3.5}, "id": f"alert-{number}"},
            )
            sent.append(f"alert-{number}")

    try:
        with webhook.serve() as url:
            command = (EXAMPLES / "alert-bot" / "bot.py", server.url, url, tmp_path / "alerts.json")
            for kill in range(KILLS + 1):
                webhook.refusals = kill
                with process(*command, cwd=tmp_path):
                    if kill == 0:  # it begins with what comes from now on
                        wait_until(lambda: _is_following(server, webhook))
                    seen = len(_alerts(webhook))
                    publish(20)
                    wait_until(lambda seen=seen: len(_alerts(webhook)) >= seen + 8)
                publish(5)  # nobody is there
            with process(*command, cwd=tmp_path):
                wait_until(lambda: len(_alerts(webhook)) >= len(sent))
    finally:
        server.kill()
    acted = _alerts(webhook)
    assert acted == {key: f"pair-{key.removeprefix('alert-')}: +3.5 %" for key in sent}
    assert list(acted) == sent, "in their order"


def _alerts(webhook: Webhook) -> dict[str, str]:
    """What it did, without the probes: of those any number may come, and late."""
    return {key: text for key, text in webhook.acted.items() if not text.startswith("probe")}


def _is_following(server: Server, webhook: Webhook) -> bool:
    server.post({"type": "price.tick", "entity": "probe", "data": {"pct": -9.0}})
    return bool(webhook.acted)
