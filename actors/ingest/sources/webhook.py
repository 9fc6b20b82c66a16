"""Source `webhook`: others POST their signals, signed with HMAC-SHA256 over time and body."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any

import attrs

from actors.ingest.deliveries import Delivery
from actors.ingest.mapping import ItemMapping, NoSignal
from actors.ingest.options import Options
from actors.ingest.source import BATCH_BYTES, InvalidOptions, World
from actors.signals import Draft
from runtime import Secret

SECRET_CHARACTERS_MIN = 16
SIGNALS_MAX = 1_000
DELIVERY_CHARACTERS = 200
UNSIGNED = 401

_PART = re.compile(r"(t|v1)=([0-9a-fA-F]+)")
_DELIVERY = re.compile(r"[!-~]{1,200}")


class Refused(Exception):
    """A request is not taken; `status` is the answer's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@attrs.frozen
class Signature:
    """`t=<unix seconds>,v1=<hex>`; several `v1` while the sender changes its secret."""

    time: int
    macs: tuple[str, ...]

    @classmethod
    def parse(cls, header: str) -> Signature:
        """Read the header. Raises: Refused."""
        parts = [_PART.fullmatch(part.strip()) for part in header.split(",")]
        times = [part[2] for part in parts if part is not None and part[1] == "t" and part[2].isdigit()]
        macs = tuple(part[2].lower() for part in parts if part is not None and part[1] == "v1")
        if len(times) != 1 or not 1 <= len(macs) <= 4 or len(times[0]) > 12:
            raise Refused(
                UNSIGNED, "no signature that can be read; send it as t=<unix seconds>,v1=<hex of HMAC-SHA256>"
            )
        return cls(int(times[0]), macs)


@attrs.frozen(kw_only=True)
class Webhook:
    """What is known of a sender. It is not asked; requests come to `POST /v1/webhooks/{name}`.

    Attributes:
        secrets: any of them may have signed. tolerance_s: how far its clock may be from ours.
        body_bytes: of one request. remember_s, deliveries: how long, and how many deliveries are recognised.
        signature_header, delivery_header: where both are, lower case.
    """

    world: World
    secrets: tuple[Secret, ...] = attrs.field(repr=False)
    tolerance_s: float
    body_bytes: int
    remember_s: float
    deliveries: int
    signature_header: str
    delivery_header: str
    mapping: ItemMapping

    def delivery(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """What a request carries, once its signature is found good. Raises: Refused."""
        signature = self.check(headers.get(self.signature_header), body)
        key = self.key(headers.get(self.delivery_header), signature)
        return Delivery(
            key=key,
            signature=signature.macs[0],
            digest=hashlib.sha256(body).hexdigest(),
            drafts=self.drafts(key, body),
        )

    def check(self, header: str | None, body: bytes) -> Signature:
        """Whether one of the secrets signed this body lately; compared in constant time.

        Raises: Refused.
        """
        if header is None:
            raise Refused(
                UNSIGNED, f"the header {self.signature_header} is missing; sign `t.body` with the shared secret"
            )
        signature = Signature.parse(header)
        signed = f"{signature.time}.".encode() + body
        wanted = [hmac.new(secret.value.encode(), signed, hashlib.sha256).hexdigest() for secret in self.secrets]
        # No short cut: how long this takes tells nothing about which secret was nearly right.
        if not sum([hmac.compare_digest(mac, one) for mac in signature.macs for one in wanted]):
            raise Refused(UNSIGNED, "the signature is not that of this body; sign `t.body` with the shared secret")
        away_s = self.world.now() - signature.time
        if abs(away_s) > self.tolerance_s:
            raise Refused(
                UNSIGNED,
                f"signed {abs(away_s):,.0f} s {'ago' if away_s > 0 else 'ahead'}; sign each attempt anew: "
                f"{self.tolerance_s:,.0f} s are allowed",
            )
        return signature

    def key(self, delivery_id: str | None, signature: Signature) -> str:
        """What the delivery is called: the sender's id for it, or else its signature.

        Raises: Refused.
        """
        if delivery_id is None:
            return signature.macs[0]
        if _DELIVERY.fullmatch(delivery_id) is None:
            raise Refused(400, f"{self.delivery_header} must be 1 to {DELIVERY_CHARACTERS} printable ASCII characters")
        return delivery_id

    def drafts(self, key: str, body: bytes) -> tuple[Draft, ...]:
        """The signals of a body; all or nothing. Raises: Refused."""
        try:
            items = self.mapping.split(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"the body is not JSON, or has no signals: {error}") from None
        if not items:
            raise Refused(400, "an empty array; send a signal, or an array of them")
        if len(items) > SIGNALS_MAX:
            raise Refused(413, f"{len(items):,} signals in one request; at most {SIGNALS_MAX:,}")
        found: list[Draft] = []
        for index, value in enumerate(items):
            try:
                item = self.mapping.item(value, self.world)
            except NoSignal as error:
                raise Refused(422, f"signal {index}: {error}") from None
            found.append(item.draft if item.own else attrs.evolve(item.draft, id=self.world.id(f"{key}:{index}")))
        if (size := sum(draft.size_bytes for draft in found)) > BATCH_BYTES:
            raise Refused(413, f"the signals take {size:,} bytes; at most {BATCH_BYTES:,} in one request")
        return tuple(found)


def webhook(world: World, options: Mapping[str, Any]) -> Webhook:
    """The receiver of what is posted to `/v1/webhooks/{name}`. Raises: InvalidOptions."""
    read = Options("webhook", options)
    secrets = read.secrets("secrets", least=1, most=4)
    for secret in secrets:
        if len(secret.value) < SECRET_CHARACTERS_MIN:
            raise InvalidOptions(
                f"options.secrets has one of {len(secret.value)} characters; must have at least "
                f"{SECRET_CHARACTERS_MIN}, such as `openssl rand -hex 32` prints"
            )
    found = Webhook(
        world=world,
        secrets=secrets,
        tolerance_s=read.number("tolerance_s", 300, 1, 3_600),
        body_bytes=read.whole("body_bytes", 1_048_576, 1, 4 * 1024 * 1024),
        remember_s=read.number("remember_s", 86_400, 7_200, 2_592_000),
        deliveries=read.whole("deliveries", 100_000, 1, 1_000_000),
        signature_header=read.text("signature_header", "X-Signature").lower(),
        delivery_header=read.text("delivery_header", "X-Delivery").lower(),
        mapping=ItemMapping.of(read, entity=world.name),
    )
    read.done()
    return found
