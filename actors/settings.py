"""The service's tables of `heliograph.toml`, checked: a mistake says what was seen and what is allowed."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import attrs

from actors.ingest.kinds import KINDS, find_kind
from actors.ingest.schedule import InvalidSchedule, Missed, Schedule
from actors.ingest.source import InvalidOptions, Kind, World
from actors.protocol.limits import Limits
from actors.signals import is_name
from actors.stream import CONSOLE_STREAM, STREAM, is_stream_name
from actors.token_keys import Algorithm, InvalidKey, TokenKey
from runtime import Secret

SHARDS_MAX = 64
PASSWORD_CHARACTERS_MIN = 12
PASSWORD_CHARACTERS_MAX = 1_024
TOKEN_CHARACTERS_MIN = 16
SOURCES_MAX = 256
MESSAGE_BYTES_MAX = 1_048_576
DATA_BYTES_MAX = 98_304  # with names, id and tags a signal must fit a stored value of 131,072
STREAMS_MAX = 64
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
    """Table `[connections]`: the heartbeat, compression, and how clients are sent elsewhere.

    A client pings every `ping_ms`; it is closed with 4105 when nothing came for twice that and `dead_ms`.

    Attributes:
        compression: whether messages are compressed for clients that offer permessage-deflate.
        handover_s: how long a client that was asked to go is served on, so that it can open its next connection
            first; 0 when nothing can take over before this server is gone.
        moves_per_s: how many clients are asked to go in a second.
        move_to: the URL they are sent to; the one they know when it is empty.
        age_max_s: after how long a client is asked to go and connect anew; 0: never.
    """

    ping_ms: int = attrs.field(default=25_000, validator=_between(1_000, 600_000))
    dead_ms: int = attrs.field(default=10_000, validator=_between(1_000, 600_000))
    handover_s: float = attrs.field(default=0.0, validator=_between(0, 600))
    moves_per_s: int = attrs.field(default=1_000, validator=_between(1, 1_000_000))
    move_to: str = attrs.field(default="", validator=_check_url)
    age_max_s: float = attrs.field(default=0.0, validator=_between(0, 31_536_000))
    compression: bool = False

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
class KeySettings:
    """One `[auth.jwt.keys.KID]` table: a key that tokens are signed with.

    Attributes:
        algorithm: the one that the key is for. key: a secret for `HS256`, for the others a public key in PEM.
    """

    algorithm: Algorithm
    key: Secret


@attrs.frozen(kw_only=True)
class JwtSettings:
    """Table `[auth.jwt]`: which JSON Web Tokens let in; without keys none does.

    Attributes:
        audience: `aud` of every token. issuer: `iss` of every token; not looked at when it is empty.
        keys: by `kid`. jwks: a file with more of them, read again within seconds when it has changed.
        max_age_s: how far ahead `exp` may be. leeway_s: how far `nbf` and `iat` may be.
    """

    audience: str = ""
    issuer: str = ""
    keys: dict[str, KeySettings] = attrs.field(factory=dict)
    jwks: str = ""
    max_age_s: float = attrs.field(default=900.0, validator=_between(10, 86_400))
    leeway_s: float = attrs.field(default=5.0, validator=_between(0, 60))

    def __attrs_post_init__(self) -> None:
        if self.enabled and not self.audience:
            raise ValueError("audience is empty; set it to the `aud` of the tokens that are meant for this service")
        self.parsed()

    @property
    def enabled(self) -> bool:
        """Whether there are keys to check tokens with."""
        return bool(self.keys or self.jwks)

    def parsed(self) -> dict[str, TokenKey]:
        """The configured keys by `kid`. Raises: ValueError, naming the key."""
        found: dict[str, TokenKey] = {}
        for kid, settings in self.keys.items():
            try:
                found[kid] = TokenKey.parse(settings.algorithm, settings.key.value)
            except InvalidKey as error:
                raise ValueError(f"keys.{kid}: {error}") from None
        return found


@attrs.frozen(kw_only=True)
class AuthSettings:
    """Table `[auth]`: what lets a client in; with neither, everybody who can connect may.

    Attributes:
        tokens: secrets that allow everything. jwt: signed tokens, each of which says what it allows.
    """

    tokens: tuple[Secret, ...] = attrs.field(default=(), validator=_check_tokens)
    jwt: JwtSettings = JwtSettings()


def _check_passwords(_: Any, __: attrs.Attribute[Any], passwords: Sequence[Secret]) -> None:
    for position, secret in enumerate(passwords):
        least, most = PASSWORD_CHARACTERS_MIN, PASSWORD_CHARACTERS_MAX
        if not least <= len(secret.value) <= most:
            bound = f"at least {least}" if len(secret.value) < least else f"at most {most:,}"
            raise ValueError(f"password {position + 1} has {len(secret.value):,} characters; must be {bound}")


@attrs.frozen(kw_only=True)
class ConsoleSettings:
    """Table `[console]`: what an operator may ask of the server and do to it, under `/console/`.

    Attributes:
        passwords: each lets an operator in from anywhere; with none only requests of this machine are answered, that
            no proxy has passed on.
        session_s: how long somebody stays signed in.
        analytics_days: for how long it is kept by the hour what became of connections; 0 keeps nothing of it.
    """

    enabled: bool = True
    passwords: tuple[Secret, ...] = attrs.field(default=(), validator=_check_passwords)
    session_s: float = attrs.field(default=43_200.0, validator=_between(60, 2_592_000))
    analytics_days: int = attrs.field(default=90, validator=_between(0, 366))

    @property
    def has_analytics(self) -> bool:
        """Whether connections are counted over days."""
        return self.enabled and self.analytics_days > 0


@attrs.frozen(kw_only=True)
class MetricsSettings:
    """Table `[metrics]`: figures for Prometheus at `/metrics`.

    Attributes:
        tokens: each lets a scrape in; with none only requests of this machine are answered, that no proxy has passed
            on.
    """

    enabled: bool = True
    tokens: tuple[Secret, ...] = attrs.field(default=(), validator=_check_tokens)


_OTEL = "opentelemetry.exporter.otlp.proto.common.trace_encoder"
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


def _check_endpoint(_: Any, __: attrs.Attribute[Any], url: str) -> None:
    if url and not url.startswith(("http://", "https://")):
        raise ValueError(f"saw {url!r}; must be empty, or such as http://127.0.0.1:4318/v1/traces")
    if url:
        try:
            importlib.import_module(_OTEL)
        except ImportError as error:
            raise ValueError(f"traces need another package ({error}); pip install 'heliograph[otel]'") from None


def _check_headers(_: Any, __: attrs.Attribute[Any], headers: Mapping[str, Secret]) -> None:
    for name, value in headers.items():
        if _HEADER_NAME.fullmatch(name) is None or not (value.value.isascii() and value.value.isprintable()):
            raise ValueError(f"{name!r} and its value are no HTTP header")


@attrs.frozen(kw_only=True)
class TracingSettings:
    """Table `[tracing]`: signals as OpenTelemetry traces.

    Attributes:
        endpoint: where to send them, by OTLP over HTTP; nowhere when it is empty.
        sample: the share of the signals that are sent, at random.
        headers: of the requests. service: the `service.name` of all of them.
    """

    endpoint: str = attrs.field(default="", validator=_check_endpoint)
    sample: float = attrs.field(default=0.01, validator=_between(0, 1))
    headers: dict[str, Secret] = attrs.field(factory=dict, validator=_check_headers)
    service: str = "heliograph"

    @property
    def share(self) -> float:
        """Of the signals, how many are sent."""
        return self.sample if self.endpoint else 0.0


_CONSOLE_STREAM_SETTINGS = StreamSettings(
    retention_signals=10, retention_s=60.0, retention_max_s=120.0, retention_bytes=1 << 22, dedup_s=0.0, groups=100
)


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
        stream: where its signals are published.
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
    stream: str = STREAM
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


def _check_streams(_: Any, __: attrs.Attribute[Any], names: Sequence[str]) -> None:
    if len(names) > STREAMS_MAX:
        raise ValueError(f"saw {len(names)} streams; must be at most {STREAMS_MAX}")
    for name in names:
        if not is_stream_name(name):
            raise ValueError(f"saw {name!r}; a stream's name is 1–64 of A-Z a-z 0-9 _ -")
        if name in (STREAM, CONSOLE_STREAM) or names.count(name) > 1:
            raise ValueError(
                f"{name!r} is there already; name each stream once, and not {STREAM!r} or {CONSOLE_STREAM!r}, "
                "which always are"
            )


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
        shards: connection managers that share the sockets of a stream.
        streams: names of streams beside the one that is always there.
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
    console: ConsoleSettings = ConsoleSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    shards: int = attrs.field(default=2, validator=_between(1, SHARDS_MAX))
    streams: tuple[str, ...] = attrs.field(default=(), validator=_check_streams)
    sources: tuple[SourceSettings, ...] = attrs.field(default=(SourceSettings(kind="host"),), validator=_check_sources)
    sources_enabled: bool = True
    test_routes: bool = False

    def __attrs_post_init__(self) -> None:
        for source in self.sources:
            _check_options(source, self.kinds)
            if source.stream not in self.stream_names:
                known = ", ".join(self.stream_names)
                raise ValueError(f"source {source.name!r}: stream is {source.stream!r}; `streams` has {known}")

    def authenticated(self) -> bool:
        """Whether clients must show a token, so that the server may listen beyond this machine."""
        return bool(self.auth.tokens) or self.auth.jwt.enabled

    @property
    def stream_names(self) -> tuple[str, ...]:
        """Every stream there is."""
        return (STREAM, *self.streams)

    def traced_share(self, name: str | None) -> float:
        """Of the signals of a stream, how many are exported as traces."""
        return 0.0 if name == CONSOLE_STREAM else self.tracing.share

    def stream_settings(self, name: str | None) -> StreamSettings:
        """What is kept of a stream."""
        return _CONSOLE_STREAM_SETTINGS if name == CONSOLE_STREAM else self.stream

    @property
    def all_shards(self) -> int:
        """Connection managers of all streams together."""
        return self.shards * len(self.stream_names)

    def active_sources(self) -> tuple[SourceSettings, ...]:
        """The sources that run."""
        return self.sources if self.sources_enabled else ()
