"""MessagePack in and out, with the types that JSON has and no others: a value means the same in both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn, cast

import msgpack

from actors.protocol import ijson
from actors.protocol.ijson import InvalidJson


class InvalidMessagePack(InvalidJson):
    """The bytes are no MessagePack; what follows them cannot be found."""


def split(data: bytes) -> Iterator[bytes]:
    """The objects that are concatenated in `data`, one by one, not decoded yet.

    Nothing is built while they are looked for, so a header that announces more than there is costs nothing.

    Raises: InvalidMessagePack, where the next object is cut short, no MessagePack, or nested too deep to be skipped.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(data)))
    unpacker.feed(data)
    begin = 0
    while begin < len(data):
        try:
            unpacker.skip()
        except msgpack.OutOfData:
            raise InvalidMessagePack(f"not MessagePack: the object at byte {begin} is cut short") from None
        except msgpack.StackError:
            raise InvalidMessagePack(f"not MessagePack: the object at byte {begin} is nested too deep") from None
        except (ValueError, msgpack.UnpackException):
            raise InvalidMessagePack(f"not MessagePack: the object at byte {begin} has an unknown type") from None
        end = unpacker.tell()
        yield data[begin:end]
        begin = end


def parse(data: bytes) -> object:
    """One object, which `split` has found, as Python values.

    Refused is what `ijson.parse` refuses, and beside it bytes, extensions, and keys that are no text.

    Raises: InvalidJson.
    """
    try:
        # No length in it may be more than its own; `split` has seen that whatever it announces is there.
        value: object = msgpack.unpackb(data, object_pairs_hook=_object, ext_hook=_extension, strict_map_key=False)
    except InvalidJson:
        raise
    except UnicodeDecodeError as error:
        raise InvalidJson(f"not UTF-8: {error.reason}") from None
    except (ValueError, msgpack.UnpackException) as error:
        raise InvalidJson(f"not MessagePack: {error or type(error).__name__}") from None
    ijson.check(value)
    return value


def dump(value: object) -> bytes:
    """A value that JSON has, as MessagePack."""
    return cast("bytes", msgpack.packb(value))


def join(fields: dict[str, object], name: str, count: int, items: Sequence[bytes]) -> bytes:
    """A map of these fields and of an array under one more name.

    Args:
        fields: the map so far. name: of the array.
        count: how many elements the array has. items: the elements as MessagePack, however they are cut.
    """
    packer = msgpack.Packer()
    parts = [packer.pack_map_header(len(fields) + 1)]
    for key, value in fields.items():
        parts += (packer.pack(key), packer.pack(value))
    return b"".join([*parts, packer.pack(name), packer.pack_array_header(count), *items])


def _extension(code: int, data: bytes) -> NoReturn:
    raise InvalidJson(f"an extension, of type {code}, is no JSON type")


def _object(pairs: list[tuple[object, object]]) -> dict[str, object]:
    for key, _ in pairs:
        if not isinstance(key, str):
            raise InvalidJson(f"an object's key is of type {type(key).__name__}; a key is a string")
    return ijson.object_of(cast("list[tuple[str, object]]", pairs))
