"""Structured log lines on stderr: for people on a terminal, JSON elsewhere.

Loggers of the standard library, which other packages use, are routed into the same lines.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor

_SECRET_KEYS = frozenset({"authorization", "cookie", "password", "secret", "ticket", "token"})


def configure_logging(level: str, log_format: str, *, stream: TextIO | None = None) -> None:
    """Set up logging of the process; call it once, before the first line.

    Args:
        level: `debug`, `info`, `warning` or `error`; lines below it cost next to nothing.
        log_format: `console`, `json`, or `auto`: console when the stream is a terminal.
        stream: where lines go; stderr when None.
    """
    target = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[level.upper()]
    for_people = target.isatty() if log_format == "auto" else log_format == "console"
    rendering = _for_people(target) if for_people else _for_machines()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_SHARED, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_SHARED],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries narrate at info; what they warn about is what an operator needs.
    root.setLevel(max(number, logging.WARNING))


def _without_secrets(_: object, __: str, event: EventDict) -> EventDict:
    for key in event.keys() & _SECRET_KEYS:
        event[key] = "***"
    return event


_SHARED: Sequence[Processor] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _without_secrets,
)


def _for_people(target: TextIO) -> Sequence[Processor]:
    return (structlog.dev.ConsoleRenderer(colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback),)


def _for_machines() -> Sequence[Processor]:
    # `repr` of what JSON has no form for; secrets have a repr that hides them.
    return (structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=repr))
