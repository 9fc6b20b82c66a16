"""Ids are those of Durable Objects, bit for bit."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from runtime import InvalidId
from runtime.ids import id_from_name, id_from_string, new_unique_id

KEY = "oracle-sql"
ROOM = "60445df3f7c676d31659c69123b0f26e78057717bf4b7ba48d37759f1a7131d4"  # recorded on workerd


def mac(data: bytes) -> bytes:
    return hmac.digest(hashlib.sha256(KEY.encode()).digest(), data, "sha256")[:16]


def test_a_name_gives_the_recorded_id_and_stays_on_it():
    assert str(id_from_name(KEY, "room")) == ROOM
    assert id_from_name(KEY, "room").name == "room"
    assert len(str(id_from_name(KEY, ""))) == 64


def test_a_name_over_1024_bytes_gives_an_id_without_it():
    assert id_from_name(KEY, "é" * 512).name == "é" * 512
    assert id_from_name(KEY, "é" * 512 + "x").name is None


def test_a_unique_id_is_sixteen_random_bytes_and_the_mac_that_proves_its_namespace():
    made = new_unique_id(KEY, lambda count: bytes(range(count)))
    assert made.raw == bytes(range(16)) + mac(bytes(range(16)))
    assert made.name is None
    assert id_from_string(KEY, str(made)) == made


def test_a_text_is_the_id_it_was_printed_from_in_upper_case_too_and_has_no_name():
    for text in (ROOM, ROOM.upper()):
        assert id_from_string(KEY, text) == id_from_name(KEY, "room")
        assert id_from_string(KEY, text).name is None


@pytest.mark.parametrize("text", ["", "xyz", ROOM[:-1], ROOM + "0", ROOM[:-1] + "g", f" {ROOM[1:]}"])
def test_what_is_not_64_hex_digits_is_no_id(text):
    with pytest.raises(InvalidId, match=r"^Invalid Durable Object ID: must be 64 hex digits$"):
        id_from_string(KEY, text)


@pytest.mark.parametrize("text", ["0" * 64, ROOM[:-1] + "5", ROOM[32:] + ROOM[:32]])
def test_an_id_that_this_namespace_did_not_make_is_refused(text):
    with pytest.raises(InvalidId, match=r"^Durable Object ID is not valid for this namespace\.$"):
        id_from_string(KEY, text)
    with pytest.raises(InvalidId, match=r"not valid for this namespace"):
        id_from_string("another", ROOM)
