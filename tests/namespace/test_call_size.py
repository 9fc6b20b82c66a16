"""A call carries at most 32 MiB, measured as encoded: of its arguments, and of its result."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from runtime import Actor, App, LimitExceeded, Namespace, RpcTarget
from runtime.limits import RPC_BYTES
from runtime.testing import start_server

HEADERS = 12  # bytes: of the arguments as a tuple, and of one text or bytes in it


@attrs.frozen
class Letter:
    """Passes by reference, whatever it weighs."""

    pages: tuple[bytes, ...] = attrs.field(repr=False)


class Box(RpcTarget):
    """Takes things in."""

    async def put(self, thing: Any) -> int:
        return len(thing)


class Scale(Actor["Env"]):
    """Takes and makes values of a size."""

    async def take(self, *things: Any, **named: Any) -> int:
        return len(things) + len(named)

    async def make(self, size: int) -> bytes:
        return bytes(size)

    async def box(self) -> Box:
        return Box()

    async def put_in_the_box_of(self, other: str, size: int) -> int:
        return await self.env.scales.get_by_name(other).box().put(bytes(size))

    async def use(self, function: Any, size: int) -> Any:
        return await function(bytes(size))

    async def lend(self, other: str, size: int) -> Any:
        async def weigh(thing: bytes) -> int:
            return len(thing)

        return await self.env.scales.get_by_name(other).use(weigh, size)


@attrs.frozen
class Env:
    scales: Namespace[Scale]


APP = App(env=Env, routes={})


def _says(size: int) -> str:
    return (
        r"^Serialized RPC arguments or return values are limited to 32MiB, "
        rf"but the size of this value was: {size} bytes\."
    )


async def test_arguments_up_to_the_bound_are_delivered_and_one_byte_more_is_refused() -> None:
    async with start_server(APP) as server:
        scale = server.env.scales.get_by_name("a")
        assert await scale.take(bytes(RPC_BYTES - HEADERS)) == 1
        with pytest.raises(LimitExceeded, match=_says(RPC_BYTES + 1)) as refused:
            await scale.take(bytes(RPC_BYTES - HEADERS + 1))
        assert (refused.value.limit, refused.value.actual) == (RPC_BYTES, RPC_BYTES + 1)


async def test_what_counts_is_the_whole_call_and_not_a_single_argument() -> None:
    half = bytes(RPC_BYTES // 2)
    async with start_server(APP) as server:
        scale = server.env.scales.get_by_name("a")
        for arguments, named in (((half, half), {}), ((half,), {"other": half}), (([half, half],), {})):
            with pytest.raises(LimitExceeded):
                await scale.take(*arguments, **named)
        with pytest.raises(LimitExceeded):
            scale.take.notify(half, half)


async def test_a_frozen_value_that_passes_by_reference_counts_with_all_it_holds() -> None:
    page = bytes(1024 * 1024)
    async with start_server(APP) as server:
        scale = server.env.scales.get_by_name("a")
        assert await scale.take(Letter((page,) * 31)) == 1
        with pytest.raises(LimitExceeded):
            await scale.take(Letter((page,) * 32))


async def test_a_text_counts_as_its_utf_8() -> None:
    async with start_server(APP) as server:
        scale = server.env.scales.get_by_name("a")
        assert await scale.take("a" * (RPC_BYTES - HEADERS)) == 1
        with pytest.raises(LimitExceeded):
            await scale.take("é" * (RPC_BYTES // 2))


async def test_a_result_over_the_bound_is_an_error_of_the_callee() -> None:
    async with start_server(APP) as server:
        scale = server.env.scales.get_by_name("a")
        assert len(await scale.make(RPC_BYTES - 5)) == RPC_BYTES - 5
        with pytest.raises(LimitExceeded, match=_says(RPC_BYTES + 5)) as refused:
            await scale.make(RPC_BYTES)
        assert refused.value.remote  # type: ignore[attr-defined]


async def test_calls_on_a_result_and_of_a_function_have_the_bound_too() -> None:
    async with start_server(APP) as server:
        scale = server.env.scales.get_by_name("a")
        assert await scale.put_in_the_box_of("b", 10) == 10
        with pytest.raises(LimitExceeded):
            await scale.put_in_the_box_of("b", RPC_BYTES)
        assert await scale.lend("b", 10) == 10
        with pytest.raises(LimitExceeded):
            await scale.lend("b", RPC_BYTES)
