"""Posts each alert of a Heliograph server to a webhook: `python bot.py URL WEBHOOK STATE-FILE`.

Killed and started again, it goes on where it was. What it had posted but not stored yet it posts again, under the same
`Idempotency-Key`, by which the other side knows it: every alert counts once.
"""

import logging
import sys

import httpx
import trio

from actors.client import F, FileCursorStore, Gap, Signal, SignalClient

log = logging.getLogger("alert-bot")
RETRY_S = (0.2, 1, 5, 30)  # the last one again and again: an alert is never passed over


async def post(web: httpx.AsyncClient, webhook: str, alert: Signal) -> None:
    """Post until the other side has it."""
    content = {"text": f"{alert.entity}: {alert.data['pct']:+.1f} %", "at": alert.ts}
    for attempt in range(sys.maxsize):
        try:
            answer = await web.post(webhook, json=content, headers={"Idempotency-Key": alert.id})
            answer.raise_for_status()
        except httpx.HTTPError as error:
            log.warning("%s; trying again", error)
            await trio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
        else:
            return


async def main(url: str, webhook: str, state: str) -> None:
    """Follow what moves by 2.5 percent or more, up or down."""
    large = (F("/data/pct") >= 2.5) | (F("/data/pct") <= -2.5)
    store = FileCursorStore(state)
    async with httpx.AsyncClient() as web, SignalClient(url, name="alert-bot", cursor_store=store) as client:
        alerts = client.subscribe(name="alerts", types=["price.>"], where=large, since="now", on_gap="skip")
        async with alerts:
            async for item in alerts:  # the cursor moves once the body is done
                if isinstance(item, Gap):
                    log.error("alerts were missed: %s", item)
                else:
                    await post(web, webhook, item)


if __name__ == "__main__":
    logging.basicConfig()
    trio.run(main, *sys.argv[1:])
