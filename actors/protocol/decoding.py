"""Frames to messages: what the server reads (an error to answer with per bad message) and what the client reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import cast

from actors.filters import Filter, InvalidFilter
from actors.protocol import ijson
from actors.protocol.codes import BAD_FILTER, BAD_FROM, BAD_MESSAGE, TOO_LARGE
from actors.protocol.cursor import Ago, Cursor, InvalidCursor, Last, Since, check_epoch
from actors.protocol.encoding import JSON, Encoding
from actors.protocol.fields import Fields, Refused
from actors.protocol.limits import HISTORY_LIMIT, HISTORY_LIMIT_MAX, LATEST_MS, LATEST_MS_MAX, LATEST_MS_MIN, Limits
from actors.protocol.messages import (
    Err,
    Gap,
    Goaway,
    Live,
    Lost,
    Ok,
    Page,
    Pong,
    Reset,
    ServerMessage,
    Sig,
    Snap,
    SubOk,
    Unsubbed,
    Welcome,
)
from actors.protocol.requests import (
    PING,
    Ack,
    Auth,
    Change,
    ClientInfo,
    ClientMessage,
    Hello,
    Hist,
    Mod,
    OnGap,
    OnSlow,
    Ping,
    Pub,
    Sub,
    Unsub,
)
from actors.signals import Draft, InvalidSignal, Signal

_ID_MAX = 2**32 - 1
_SUB_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_INFO_CHARACTERS = 128
_FEATURES = 64
_FILTERS_KEPT = 256


def decode_client(frame: str | bytes, limits: Limits, encoding: Encoding = JSON) -> list[ClientMessage | Err]:
    """The messages of one frame from a client, in order.

    A message that cannot be accepted is the `Err` to answer with, under its `id` when that could be read; the others of
    the frame stand. Never raises.
    """
    if frame == PING:  # the one message every idle client sends
        return [Ping()]
    values = encoding.parse(frame)
    if not values:
        return [Err.of(BAD_MESSAGE, "an empty frame; a message is an object", at="")]
    return [_client_message(value, limits) for value in values]


def decode_server(frame: str | bytes, encoding: Encoding = JSON) -> Iterator[ServerMessage]:
    """The messages of one frame from a server, in order; messages of unknown type are left out.

    Raises: Refused, in the place of a message of a known type that breaks the protocol.
    """
    for value in encoding.parse(frame):
        fields = _fields(value)
        read = _SERVER_READERS.get(fields.text("t"))
        if read is not None:
            yield read(fields)


# --- what a server reads ----------------------------------------------------------------------------------


def _client_message(value: object, limits: Limits) -> ClientMessage | Err:
    request_id: int | None = None
    try:
        fields = _fields(value)
        kind = fields.text("t")
        if kind == "ping":
            return Ping()
        if "id" in fields.values:
            request_id = fields.integer("id", 1, _ID_MAX)
        match kind:
            case "hello":
                return _hello(fields)
            case "sub":
                return _sub(fields, fields.integer("id", 1, _ID_MAX))
            case "mod":
                return _mod(fields)
            case "ack":
                return _ack(fields, limits)
            case "auth":
                return Auth(id=fields.integer("id", 1, _ID_MAX), token=fields.text("token"))
            case "unsub":
                return Unsub(id=fields.integer("id", 1, _ID_MAX), s=fields.text("s", pattern=_SUB_NAME))
            case "pub":
                return _pub(fields, limits)
            case "hist":
                return _hist(fields)
            case _:
                raise Refused(
                    f"unknown t {kind[:64]!r}; this server knows hello, sub, mod, ack, auth, unsub, pub, hist, ping",
                    at="/t",
                )
    except Refused as refused:
        return Err.of(refused.error, str(refused), id=request_id, at=refused.at)


def _hello(fields: Fields) -> Hello:
    subs: list[Sub | Err] = []
    for index, value in enumerate(fields.array("subs") if fields.has("subs") else ()):
        one = Fields.of(value, f"/subs/{index}")
        s = one.text("s", pattern=_SUB_NAME)
        try:
            subs.append(_sub(one, None))
        except Refused as refused:
            subs.append(Err.of(refused.error, str(refused), s=s, at=refused.at))
    return Hello(
        id=fields.integer("id", 1, _ID_MAX),
        token=fields.text("token") if fields.has("token") else None,
        resume=fields.text("resume") if fields.has("resume") else None,
        client=_client_info(fields.object("client")) if fields.has("client") else None,
        features=_words(fields, "features"),
        subs=tuple(subs),
    )


def _client_info(fields: Fields) -> ClientInfo:
    def word(name: str) -> str:
        return fields.text(name, length_max=_INFO_CHARACTERS) if fields.has(name) else ""

    return ClientInfo(name=word("name"), version=word("version"), sdk=word("sdk"))


def decode_sub(values: dict[str, object]) -> Sub:
    """A subscription without `id`, as those in `hello`. Raises: Refused."""
    return _sub(Fields.of(values), None)


def _sub(fields: Fields, request_id: int | None) -> Sub:
    s = fields.text("s", pattern=_SUB_NAME)
    on_gap = cast("OnGap", fields.choice("on_gap", ("fail", "skip"), "fail"))
    return Sub(
        id=request_id,
        s=s,
        filter=_wanted(fields),
        since=_since(fields),
        on_gap=on_gap,
        min_ms=_min_ms(fields) or 0,
        on_slow=_on_slow(fields) or "close",
    )


def _on_slow(fields: Fields) -> OnSlow | None:
    if not fields.has("on_slow"):
        return None
    return cast("OnSlow", fields.choice("on_slow", ("close", "latest", "skip"), "close"))


def _min_ms(fields: Fields) -> int | None:
    """0 for `mode` `all`, more for `latest`; None when neither is said."""
    mode = fields.choice("mode", ("all", "latest"), "all") if fields.has("mode") else None
    if mode == "latest":
        return fields.integer("min_ms", LATEST_MS_MIN, LATEST_MS_MAX) if fields.has("min_ms") else LATEST_MS
    if fields.has("min_ms"):
        raise Refused("min_ms is of mode latest, which is to be said with it", at=fields.where("min_ms"))
    return None if mode is None else 0


def _mod(fields: Fields) -> Mod:
    return Mod(
        id=fields.integer("id", 1, _ID_MAX),
        s=fields.text("s", pattern=_SUB_NAME),
        change=Change(
            filter=_wanted(fields) if fields.has("filter") else None,
            min_ms=_min_ms(fields),
            on_slow=_on_slow(fields),
            backfill=_backfill(fields) if fields.has("backfill") else None,
        ),
    )


def _ack(fields: Fields, limits: Limits) -> Ack:
    offsets = fields.object("c")
    if len(offsets.values) > limits.subs:
        raise Refused(f"c has {len(offsets.values)} subscriptions; at most {limits.subs}", at=fields.where("c"))
    return Ack({s: offsets.integer(s) for s in offsets.values})


def _backfill(fields: Fields) -> Last | Ago:
    match fields.values["backfill"]:
        case {"last": count, **others} if "ago_ms" not in others and (n := _count(count, 1)) is not None:
            return Last(n)
        case {"ago_ms": ms, **others} if "last" not in others and (n := _count(ms, 0)) is not None:
            return Ago(n)
        case _:
            message = 'backfill is {"last":n} with n ≥ 1 or {"ago_ms":m} with m ≥ 0'
            raise Refused(message, at=fields.where("backfill"), error=BAD_FROM)


def _count(value: object, least: int) -> int | None:
    """The value itself when it is an integer (`1.0` is one) in the protocol's bounds."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and value is not True and least <= value <= ijson.INTEGER_MAX else None


def _hist(fields: Fields) -> Hist:
    fields.required("from")
    reverse = fields.boolean("reverse") if fields.has("reverse") else False
    since = _since(fields)
    if since == "snapshot":
        raise Refused(
            "a page of history has all signals; a snapshot is for sub", at=fields.where("from"), error=BAD_FROM
        )
    if reverse and isinstance(since, Last | Ago):
        message = 'reverse goes back from "now" or a cursor; the newest n are limit n from "now"'
        raise Refused(message, at=fields.where("from"), error=BAD_FROM)
    return Hist(
        id=fields.integer("id", 1, _ID_MAX),
        filter=_wanted(fields),
        since=since,
        limit=fields.integer("limit", 1, HISTORY_LIMIT_MAX) if fields.has("limit") else HISTORY_LIMIT,
        reverse=reverse,
    )


def _wanted(fields: Fields) -> Filter:
    try:
        return _filter(json.dumps(fields.required("filter")))
    except InvalidFilter as error:
        raise Refused(str(error), at=error.at, error=BAD_FILTER) from None


@lru_cache(maxsize=_FILTERS_KEPT)
def _filter(text: str) -> Filter:
    """The filter of a JSON text; clients of a kind ask for the same ones, and parsing one costs ten times this look."""
    return Filter.parse(json.loads(text))


def _since(fields: Fields) -> Since:
    at = fields.where("from")
    match fields.values.get("from", "now"):
        case "now":
            return "now"
        case "earliest":
            return "earliest"
        case "snapshot":
            return "snapshot"
        case {"cursor": str(text), **others} if not {"last", "ago_ms"} & others.keys():
            try:
                return Cursor.parse(text)
            except InvalidCursor as error:
                raise Refused(str(error), at=f"{at}/cursor", error=BAD_FROM) from None
        case {"last": count, **others} if not {"cursor", "ago_ms"} & others.keys() and (n := _count(count, 1)):
            return Last(n)
        case {"ago_ms": ms, **others} if not {"cursor", "last"} & others.keys() and (n := _count(ms, 0)) is not None:
            return Ago(n)
        case _:
            raise Refused(
                'from is "now", "earliest", "snapshot", {"cursor":"<epoch>:<offset>"}, {"last":n} with n ≥ 1 '
                'or {"ago_ms":m} with m ≥ 0',
                at=at,
                error=BAD_FROM,
            )


def _pub(fields: Fields, limits: Limits) -> Pub:
    request_id = fields.integer("id", 1, _ID_MAX)
    try:
        draft = Draft.from_value(fields.required("signal"), data_bytes_max=limits.data_bytes)
    except InvalidSignal as error:
        at = fields.where("signal") + error.at
        if error.too_large:
            raise Refused(str(error), at=at, error=TOO_LARGE) from None
        raise Refused(str(error), at=at) from None
    return Pub(id=request_id, draft=draft)


# --- what a client reads ----------------------------------------------------------------------------------


def _welcome(fields: Fields) -> Welcome:
    answers = [Fields.of(value, f"/subs/{i}") for i, value in enumerate(fields.array("subs"))]
    return Welcome(
        id=fields.integer("id"),
        session=fields.text("session"),
        resume=fields.text("resume"),
        resumed=fields.boolean("resumed"),
        epoch=_epoch(fields),
        head=fields.integer("head"),
        oldest=fields.integer("oldest"),
        now=fields.integer("now"),
        ping_ms=fields.integer("ping_ms", 1),
        dead_ms=fields.integer("dead_ms", 1),
        limits=fields.object("limits").values,
        features=_words(fields, "features"),
        server=fields.text("server"),
        subs=tuple(_err(answer) if answer.values.get("t") == "err" else _subok(answer) for answer in answers),
    )


def _subok(fields: Fields) -> SubOk:
    try:
        since = Cursor.parse(fields.text("from"))
    except InvalidCursor as error:
        raise Refused(str(error), at=fields.where("from")) from None
    lost = fields.object("lost") if fields.has("lost") else None
    return SubOk(
        id=_optional_id(fields),
        s=fields.text("s"),
        g=fields.integer("g"),
        since=since,
        head=fields.integer("head"),
        recovered=fields.boolean("recovered") if fields.has("recovered") else None,
        lost=None if lost is None else Lost(lost.integer("a"), lost.integer("b")),
        filter=ijson.canonical(fields.object("filter").values),
    )


def _sig(fields: Fields) -> Sig:
    a = fields.integer("a")
    return Sig(
        g=fields.integer("g") if fields.has("g") else None,
        s=fields.text("s") if fields.has("s") else None,
        a=a,
        b=fields.integer("b", a),
        signals=_signals(fields),
        k=fields.integer("k") if fields.has("k") else 0,
    )


def _snap(fields: Fields) -> Snap:
    return Snap(s=fields.text("s"), b=fields.integer("b"), signals=_signals(fields), more=fields.boolean("more"))


def _page(fields: Fields) -> Page:
    a = fields.integer("a")
    return Page(
        id=fields.integer("id"),
        a=a,
        b=fields.integer("b", a),
        signals=_signals(fields),
        more=fields.boolean("more"),
        epoch=_epoch(fields),
    )


def _live(fields: Fields) -> Live:
    return Live(s=fields.text("s"), g=fields.integer("g"), b=fields.integer("b"))


def _gap(fields: Fields) -> Gap:
    return Gap(s=fields.text("s"), a=fields.integer("a"), b=fields.integer("b"), reason=fields.text("reason"))


def _reset(fields: Fields) -> Reset:
    return Reset(epoch=_epoch(fields), head=fields.integer("head"), reason=_note(fields, "reason"))


def _unsubbed(fields: Fields) -> Unsubbed:
    return Unsubbed(s=fields.text("s"), code=fields.integer("code"), reason=_note(fields, "reason"))


def _goaway(fields: Fields) -> Goaway:
    window = fields.array("after_ms")
    match window:
        case [int(least), int(most)] if 0 <= least <= most:
            after_ms = (least, most)
        case _:
            raise Refused(f"after_ms is {window!r}; it is [min, max] in ms", at=fields.where("after_ms"))
    return Goaway(
        reason=_note(fields, "reason"),
        after_ms=after_ms,
        deadline_ms=fields.integer("deadline_ms"),
        url=fields.text("url") if fields.has("url") else None,
    )


def _ok(fields: Fields) -> Ok:
    return Ok(
        id=fields.integer("id"),
        o=fields.integer("o", 1) if fields.has("o") else None,
        epoch=_epoch(fields) if fields.has("epoch") else None,
        dup=fields.boolean("dup") if fields.has("dup") else None,
        exp_ms=fields.integer("exp_ms") if fields.has("exp_ms") else None,
    )


def _err(fields: Fields) -> Err:
    return Err(
        code=fields.integer("code"),
        slug=_note(fields, "slug"),
        msg=_note(fields, "msg"),
        retry=fields.boolean("retry") if fields.has("retry") else False,
        id=_optional_id(fields),
        s=fields.text("s") if fields.has("s") else None,
        at=fields.text("at") if fields.has("at") else None,
        retry_after_ms=fields.integer("retry_after_ms") if fields.has("retry_after_ms") else None,
    )


def _pong(fields: Fields) -> Pong:
    return Pong()


_SERVER_READERS: dict[str, Callable[[Fields], ServerMessage]] = {
    "welcome": _welcome,
    "subok": _subok,
    "sig": _sig,
    "snap": _snap,
    "page": _page,
    "live": _live,
    "gap": _gap,
    "reset": _reset,
    "unsubbed": _unsubbed,
    "goaway": _goaway,
    "pong": _pong,
    "ok": _ok,
    "err": _err,
}


# --- both ---------------------------------------------------------------------------------------------------


def _fields(value: object) -> Fields:
    if isinstance(value, Refused):
        raise value
    return Fields.of(value)


def _signals(fields: Fields) -> tuple[Signal, ...]:
    signals: list[Signal] = []
    for index, value in enumerate(fields.array("d")):
        try:
            signals.append(Signal.from_value(value))
        except InvalidSignal as error:
            raise Refused(str(error), at=f"{fields.where('d')}/{index}{error.at}") from None
    return tuple(signals)


def _words(fields: Fields, name: str) -> tuple[str, ...]:
    values = fields.array(name) if fields.has(name) else []
    if len(values) > _FEATURES or not all(isinstance(value, str) for value in values):
        raise Refused(f"{name} is an array of at most {_FEATURES} strings", at=fields.where(name))
    return tuple(cast("list[str]", values))


def _optional_id(fields: Fields) -> int | None:
    return fields.integer("id") if fields.has("id") else None


def _epoch(fields: Fields) -> str:
    try:
        return check_epoch(fields.text("epoch"))
    except InvalidCursor as error:
        raise Refused(str(error), at=fields.where("epoch")) from None


def _note(fields: Fields, name: str) -> str:
    return fields.text(name) if fields.has(name) else ""
