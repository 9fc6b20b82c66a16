"""A little exchange with a public API as many have one: `python exchange.py PORT`, then `GET /v2/trades?limit=50`.

It answers with its newest trades, newest first, under an ETag; an unchanged list is a 304.
"""

import http.server
import json
import random
import sys
import threading  # noqa: TID251 - a server of its own, without Heliograph
import time

KEPT = 200


class Exchange:
    """Trades that happen by themselves."""

    def __init__(self) -> None:
        self.trades: list[dict[str, object]] = []
        self._chance = random.Random(1)  # noqa: S311 - made-up prices

    def trade(self) -> None:
        """One more."""
        number = len(self.trades) + 1
        pair = self._chance.choice(["BTC/USD", "ETH/USD", "XMR/USD"])
        price = round(self._chance.uniform(90, 110), 2)
        trade = {"tid": number, "pair": pair, "px": str(price), "qty": "0.5", "time": int(time.time() * 1000)}  # noqa: TID251
        self.trades = [trade, *self.trades[: KEPT - 1]]


def handler(exchange: Exchange) -> type[http.server.BaseHTTPRequestHandler]:
    """What answers requests."""

    class Api(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith("/v2/trades"):
                return self.send_error(404)
            trades = exchange.trades
            etag = f'"{trades[0]["tid"] if trades else 0}"'
            unchanged = self.headers["If-None-Match"] == etag
            body = b"" if unchanged else json.dumps({"result": {"trades": trades}}).encode()
            self.send_response(304 if unchanged else 200)
            self.send_header("ETag", etag)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return None

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Api


def main(port: int) -> None:
    """Trade twice a second, and answer."""
    exchange = Exchange()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler(exchange))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        exchange.trade()
        time.sleep(0.5)


if __name__ == "__main__":
    main(int(sys.argv[1]))
