"""Claims about log lines: one form for people, one for machines, and secrets in neither."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from runtime.log import configure_logging
from runtime.tables import Secret


@pytest.fixture
def stream():
    """Where lines go during one test; logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    before = structlog.get_config()
    yield io.StringIO()
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_machines_get_one_json_object_a_line(stream):
    configure_logging("info", "auto", stream=stream)
    structlog.get_logger().info("source failed", source="host", failures=3)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "source failed", "level": "info", "source": "host", "failures": 3}


def test_people_get_a_readable_line(stream):
    configure_logging("info", "console", stream=stream)
    structlog.get_logger().info("source failed", source="host")
    assert "[info     ] source failed" in stream.getvalue()
    assert "source=host" in stream.getvalue()


def test_lines_below_the_level_are_left_out(stream):
    configure_logging("warning", "json", stream=stream)
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_what_other_packages_warn_about_comes_out_the_same_way(stream):
    configure_logging("info", "json", stream=stream)
    logging.getLogger("package").info("chatter")
    logging.getLogger("package").warning("disk %s is slow", "sda")
    (line,) = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert (line["event"], line["logger"], line["level"]) == ("disk sda is slow", "package", "warning")


def test_an_exception_is_part_of_its_line(stream):
    configure_logging("info", "json", stream=stream)
    try:
        raise ValueError("too long")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert json.loads(stream.getvalue())["exception"].endswith("ValueError: too long")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_do_not_come_out(stream, log_format):
    configure_logging("debug", log_format, stream=stream)
    structlog.get_logger().info("asked", token="hunter2", authorization="Bearer hunter2", key=Secret("hunter2"))
    logging.getLogger("package").warning("with %s", Secret("hunter2"))
    assert "asked" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
