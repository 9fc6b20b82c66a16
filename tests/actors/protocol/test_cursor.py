"""Cursors and epochs as texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.protocol.cursor import Cursor, InvalidCursor, check_epoch


@given(st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True), st.integers(0, 2**53 - 1))
def test_a_cursor_is_its_text(epoch, offset):
    cursor = Cursor(epoch, offset)
    assert str(cursor) == f"{epoch}:{offset}"
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "a:",
        "a",
        "a:-1",
        "a:01",
        "a:1.0",
        "a:9007199254740992",
        "a b:1",
        "a:1 ",
        "a:1\n",
        "a:b:1",
        "e" * 33 + ":1",
        "a:١",
    ],
)
def test_what_is_no_cursor(text):
    with pytest.raises(InvalidCursor, match="such as k3F9:1041"):
        Cursor.parse(text)


def test_an_epoch_is_never_empty():
    assert check_epoch("k3F9") == "k3F9"
    for text in ("", "a b", "a:b", "e" * 33):
        with pytest.raises(InvalidCursor):
            check_epoch(text)
