"""The service's tables of `heliograph.toml`, checked: a mistake says what was seen and what is allowed."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import attrs

from actors.ingest.kinds import KINDS, find_kind
from actors.ingest.schedule import InvalidSchedule, Missed, Schedule
from actors.ingest.source import InvalidOptions, Kind, World
from actors.protocol.limits import Limits
from actors.signals import is_name
from runtime import Secret

SHARDS_MAX = 64
TOKEN_CHARACTERS_MIN = 16
SOURCES_MAX = 256
MESSAGE_BYTES_MAX = 1_048_576
DATA_BYTES_MAX = 98_304  # with names, id and tags a signal must fit a stored value of 131,072
SUBS_MAX = 256  # all of a socket's subscriptions must fit its attachment


def _between(least: float, most: float) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_: Any, __: attrs.Attribute[Any], value: Any) -> None:
        if not least <= value <= most:
            raise ValueError(f"saw {value:,}; must be {least:,} to {most:,}")

    return check


@attrs.frozen(kw_only=True)
class StreamSettings:
    """Table `[stream]`: what is kept, and how long.

    A signal is removed when more than `retention_signals` newer ones exist and it is older than `retention_s`, when
    it is older than `retention_max_s`, or when the log takes more than `retention_bytes`.
    """

    retention_signals: int = attrs.field(default=100_000, validator=_between(1, 100_000_000))
    retention_s: float = attrs.field(default=600.0, validator=_between(0, 31_536_000))
    retention_max_s: float = attrs.field(default=86_400.0, validator=_between(1, 31_536_000))
    retention_bytes: int = attrs.field(default=1 << 30, validator=_between(65_536, 1 << 40))
    dedup_s: float = attrs.field(default=120.0, validator=_between(0, 3_600))
    dedup_signals: int = attrs.field(default=200_000, validator=_between(1, 10_000_000))
    position_s: float = attrs.field(default=25.0, validator=_between(1, 30))  # signals.v1, 2.5: at most 30
    groups: int = attrs.field(default=10_000, validator=_between(1, 100_000))  # distinct filters at a time
    resume_s: float = attrs.field(default=86_400.0, validator=_between(120, 31_536_000))

    def __attrs_post_init__(self) -> None:
        if self.retention_max_s < self.retention_s:
            raise ValueError(
                f"retention_max_s is {self.retention_max_s:,} and retention_s {self.retention_s:,}; "
                "the longest time must not be the shorter one"
            )


def _check_url(_: Any, __: attrs.Attribute[Any], url: str) -> None:
    if url and not url.startswith(("ws://", "wss://", "http://", "https://")):
        raise ValueError(f"saw {url!r}; must be empty, or begin with wss://, https://, ws:// or http://")


@attrs.frozen(kw_only=True)
class ConnectionSettings:
    """Table `[connections]`: the heartbeat, and how clients are sent elsewhere.

    A client pings every `ping_ms`; it is closed with 4105 when nothing came for twice that and `dead_ms`.

    Attributes:
        handover_s: how long a client that was asked to go is served on, so that it can open its next connection
            first; 0 when nothing can take over before this server is gone.
        moves_per_s: how many clients are asked to go in a second.
        move_to: the URL they are sent to; the one they know when it is empty.
    """

    ping_ms: int = attrs.field(default=25_000, validator=_between(1_000, 600_000))
    dead_ms: int = attrs.field(default=10_000, validator=_between(1_000, 600_000))
    handover_s: float = attrs.field(default=0.0, validator=_between(0, 600))
    moves_per_s: int = attrs.field(default=1_000, validator=_between(1, 1_000_000))
    move_to: str = attrs.field(default="", validator=_check_url)

    @property
    def silent_s(self) -> float:
        """How long a connection may be silent."""
        return (2 * self.ping_ms + self.dead_ms) / 1000


def _check_tokens(_: Any, __: attrs.Attribute[Any], tokens: Sequence[Secret]) -> None:
    for position, secret in enumerate(tokens):
        token = secret.value
        if len(token) < TOKEN_CHARACTERS_MIN or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError(
                f"token {position + 1} has {len(token)} characters; must be at least {TOKEN_CHARACTERS_MIN} "
                "printable ASCII characters without spaces, such as `openssl rand -hex 32` prints"
            )


@attrs.frozen(kw_only=True)
class AuthSettings:
    """Table `[auth]`: the secrets that let a client in; with none, everybody who can connect may."""

    tokens: tuple[Secret, ...] = attrs.field(default=(), validator=_check_tokens)

    def accepts(self, presented: str | None) -> bool:
        """Whether this token lets its bearer in, compared in constant time."""
        if not self.tokens:
            return True
        seen = (presented or "").encode("utf-8", "surrogatepass")
        # No short cut: how long this takes tells nothing about which secret was nearly right.
        return sum([hmac.compare_digest(seen, token.value.encode()) for token in self.tokens]) > 0


def _check_source_name(_: Any, __: attrs.Attribute[Any], name: str) -> None:
    if not is_name(name):
        raise ValueError(f"saw {name!r}; must be 1–8 tokens of A-Z a-z 0-9 _ - : @ joined by dots")


def _check_schedule(_: Any, __: attrs.Attribute[Any], text: str) -> None:
    try:
        Schedule.parse(text)
    except InvalidSchedule as error:
        raise ValueError(str(error)) from None


def _check_timezone(_: Any, __: attrs.Attribute[Any], name: str) -> None:
    try:
        Schedule.parse("@hourly", name)
    except InvalidSchedule as error:
        raise ValueError(str(error)) from None


@attrs.frozen(kw_only=True)
class SourceSettings:
    """One `[[sources]]` table: where signals come from and when it is asked.

    Attributes:
        kind: a kind of source, such as `host`, or `module:factory` of one's own.
        name: names the source in ids, logs and `/v1/sources`; its kind when it is left out.
        schedule: a cron expression, `@hourly` and the like, or `@every 5s`.
        timezone: of a cron expression, by its IANA name.
        jitter_s: each run starts up to this much later, at random, so that many sources do not start together.
        missed: what becomes of runs whose time went by while the server was down or the last run went on.
        timeout_s: how long one fetch may take.
        options: what the kind takes, see its page.
    """

    kind: str
    name: str = attrs.field(
        default=attrs.Factory(lambda self: self.kind.rpartition(":")[2], takes_self=True),
        validator=_check_source_name,
    )
    schedule: str = attrs.field(default="@every 1s", validator=_check_schedule)
    timezone: str = attrs.field(default="UTC", validator=_check_timezone)
    jitter_s: float = attrs.field(default=0.0, validator=_between(0, 3_600))
    missed: Missed = "run_once"
    timeout_s: float = attrs.field(default=30.0, validator=_between(0.1, 600))
    options: dict[str, Any] = attrs.field(factory=dict, repr=False)  # may have secrets

    @property
    def is_asked(self) -> bool:
        """Whether it has a schedule; to a webhook others come."""
        return self.kind != "webhook"


async def _nothing_blocks(fn: Callable[..., Any], /, *args: Any) -> Any:
    raise AssertionError("a factory of sources only checks its options")


def _check_options(source: SourceSettings, kinds: Mapping[str, Kind | str]) -> None:
    """Make the source once, so that a mistake in its options stops the start."""
    world = World(name=source.name, now=lambda: 0.0, run_blocking=_nothing_blocks)
    try:
        find_kind(source.kind, kinds)(world, source.options)
    except InvalidOptions as error:
        raise ValueError(f"source {source.name!r}: {error}") from None


def _check_sources(_: Any, __: attrs.Attribute[Any], sources: Sequence[SourceSettings]) -> None:
    if len(sources) > SOURCES_MAX:
        raise ValueError(f"saw {len(sources)} sources; must be at most {SOURCES_MAX}")
    seen: set[str] = set()
    for source in sources:
        if source.name in seen:
            raise ValueError(f"two sources are named {source.name!r}; give each `name` once")
        seen.add(source.name)


def _check_limits(_: Any, __: attrs.Attribute[Any], limits: Limits) -> None:
    most = {
        "msg_bytes": MESSAGE_BYTES_MAX,
        "data_bytes": DATA_BYTES_MAX,
        "subs": SUBS_MAX,
    }
    for field in attrs.fields(Limits):
        value = getattr(limits, field.name)
        if not 1 <= value <= most.get(field.name, 2**31):
            raise ValueError(f"{field.name} is {value:,}; must be 1 to {most.get(field.name, 2**31):,}")


@attrs.frozen(kw_only=True)
class Settings:
    """Everything in `heliograph.toml` but `[server]`.

    Attributes:
        kinds: the kinds of source by their names; a subclass may know more.
        shards: connection managers that share the sockets.
        sources: with none configured, the `host` source runs every second.
        sources_enabled: False asks no source (`--no-sources`).
        test_routes: adds the echo WebSocket at `/_test/echo` (`--test-routes`).
    """

    authentication_key: ClassVar[str] = "auth.tokens"
    kinds: ClassVar[Mapping[str, Kind | str]] = KINDS

    stream: StreamSettings = StreamSettings()
    limits: Limits = attrs.field(default=Limits(), validator=_check_limits)
    connections: ConnectionSettings = ConnectionSettings()
    auth: AuthSettings = AuthSettings()
    shards: int = attrs.field(default=2, validator=_between(1, SHARDS_MAX))
    sources: tuple[SourceSettings, ...] = attrs.field(default=(SourceSettings(kind="host"),), validator=_check_sources)
    sources_enabled: bool = True
    test_routes: bool = False

    def __attrs_post_init__(self) -> None:
        for source in self.sources:
            _check_options(source, self.kinds)

    def authenticated(self) -> bool:
        """Whether clients must show a token, so that the server may listen beyond this machine."""
        return bool(self.auth.tokens)

    def active_sources(self) -> tuple[SourceSettings, ...]:
        """The sources that run."""
        return self.sources if self.sources_enabled else ()
