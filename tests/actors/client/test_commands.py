"""The two commands: what they print, and how they end."""

import json

import pytest
import trio
from click.testing import CliRunner

from actors.client import commands
from actors.client.transport import TransportClosed


@pytest.fixture
def run(server, monkeypatch, autojump_clock):
    """Runs a command against a scripted server, in virtual time: `await run(play, "tail", …)`."""

    async def start(play, name, *arguments, env=None):
        outcome = {}
        monkeypatch.setattr(commands, "websocket_connect", lambda: server.connect)

        def keep(work):
            outcome["work"] = work
            raise _Kept

        monkeypatch.setattr(commands, "_run", keep)
        CliRunner().invoke(getattr(commands, name), arguments, env=env)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            try:
                outcome["result"] = await outcome["work"]()
            except Exception as error:  # noqa: BLE001 - raised below, outside the nursery
                outcome["error"] = error
            nursery.cancel_scope.cancel()
        if "error" not in outcome:
            return outcome["result"]
        error = outcome["error"]
        while isinstance(error, ExceptionGroup):
            [error] = error.exceptions
        raise error

    return start


class _Kept(Exception):
    pass


def invoke(name, *arguments):
    return CliRunner().invoke(getattr(commands, name), arguments)


async def test_tail_prints_one_json_signal_per_line(run, server, sig, live, capsys):
    seen = {}

    async def play():
        link = await server.accept()
        seen.update(await link.welcome(head=4))
        seen["token"] = link.token
        link.send(live("sub-1", 4), sig(4, 6, 5, 6))
        link.send({"t": "gap", "s": "sub-1", "a": 6, "b": 9, "reason": "slow"})
        await trio.sleep(1)
        link.close(4004, "token revoked")

    with pytest.raises(Exception, match="token revoked"):
        await run(
            play,
            "tail",
            "host:1",
            "--types",
            "price.>",
            "--types",
            "!price.test",
            "--entities",
            "btc-*",
            "--where",
            '{"f":"/data/n","op":"gt","v":1}',
            "--from",
            "last:3",
            "--json",
            "--token",
            "secret",
        )
    printed = capsys.readouterr()
    assert [json.loads(line)["o"] for line in printed.out.splitlines()] == [5, 6]
    assert "connected" in printed.err
    assert "gap: offsets 7 to 9 will not come (slow)" in printed.err
    sub = seen["subs"][0]
    assert sub["filter"] == {
        "types": ["price.>", "!price.test"],
        "entities": ["btc-*"],
        "where": {"f": "/data/n", "op": "gt", "v": 1},
    }
    assert (sub["from"], sub["on_gap"], seen["token"]) == ({"last": 3}, "skip", "secret")


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("now", "now"),
        ("earliest", "earliest"),
        ("snapshot", "snapshot"),
        ("last:100", {"last": 100}),
        ("ago:5m", {"ago_ms": 300_000}),
        ("ago:250ms", {"ago_ms": 250}),
        ("ago:2h", {"ago_ms": 7_200_000}),
        ("k3F9:12", {"cursor": "k3F9:12"}),
    ],
)
async def test_tail_begins_where_it_is_told(text, sent, run, server):
    async def play():
        link = await server.accept()
        hello = await link.receive()
        assert hello["subs"][0]["from"] == sent
        link.close(4004)

    with pytest.raises(Exception, match="4004"):
        await run(play, "tail", "host:1", "--from", text)


@pytest.mark.parametrize(
    ("arguments", "subprotocol"),
    [
        ([], "signals.v1.json"),
        (["--encoding", "json"], "signals.v1.json"),
        (["--encoding", "msgpack"], "signals.v1.msgpack"),
    ],
)
async def test_tail_offers_the_subprotocol_of_its_encoding(arguments, subprotocol, run, server, monkeypatch):
    offered = []
    connect = server.connect

    def watched(address, token, protocol):
        offered.append(protocol)
        return connect(address, token, protocol)

    monkeypatch.setattr(server, "connect", watched)

    async def play():
        link = await server.accept()
        link.close(4004)

    with pytest.raises(Exception, match="4004"):
        await run(play, "tail", "host:1", *arguments)
    assert offered == [subprotocol]


async def test_tail_keeps_trying_and_says_so(run, server, sig, live, capsys):
    async def play():
        link = await server.accept()
        await link.welcome()
        link.send(live("sub-1", 0))
        link.close(4103)
        link = await server.accept()
        await link.welcome()
        link.send(live("sub-1", 0), sig(0, 1, 1))
        await trio.sleep(1)
        link.close(4004)

    server.refuse(TransportClosed(reason="ws://host:1: Connection refused"))
    with pytest.raises(Exception, match="4004"):
        await run(play, "tail", "host:1")
    printed = capsys.readouterr()
    assert "Connection refused; trying again in" in printed.err
    assert "closed with 4103 slow_consumer; trying again in" in printed.err
    assert "connected again" in printed.err
    assert "#1 price.tick btc-usd" in printed.out
    assert '{"n": 1}' in printed.out


async def test_the_token_may_come_from_the_environment(run, server, capsys):
    async def play():
        link = await server.accept()
        assert link.token == "from env"
        await link.welcome()
        link.close(4004)

    with pytest.raises(Exception, match="4004"):
        await run(play, "tail", "host:1", env={"HELIOGRAPH_TOKEN": "from env"})


async def test_publish_returns_the_acknowledgement(run, server):
    async def play():
        link = await server.accept()
        await link.welcome()
        request = await link.receive()
        assert request["signal"] == {"type": "alert.high", "entity": "btc-usd", "data": {"p": 1}, "id": "k1"}
        link.send({"t": "ok", "id": request["id"], "o": 17, "epoch": "k3F9", "dup": False})

    ack = await run(
        play, "publish", "host:1", "--type", "alert.high", "--entity", "btc-usd", "--data", '{"p":1}', "--id", "k1"
    )
    assert (ack.offset, ack.epoch) == (17, "k3F9")


async def test_publish_gives_up_after_some_seconds_and_says_why(run, server):
    async def play():
        await trio.sleep_forever()

    server.refuse(*[TransportClosed(reason="ws://host:1: Connection refused")] * 100)
    begun = trio.current_time()
    with pytest.raises(Exception, match=r"not published within 5 s: .*Connection refused"):
        await run(play, "publish", "host:1", "--type", "a", "--entity", "b", "--data", "1")
    assert trio.current_time() - begun < 6


def test_publish_prints_offset_and_epoch(monkeypatch):
    for dup, line in ((False, "offset 17 epoch k3F9\n"), (True, "offset 17 epoch k3F9 (stored before)\n")):
        monkeypatch.setattr(commands, "_run", lambda work, dup=dup: commands.Ack("x", 17, "k3F9", dup))
        result = invoke("publish", "--type", "a", "--entity", "b", "--data", "1")
        assert (result.exit_code, result.output) == (0, line)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("tail", ["--where", "{"], "a string needs its own quotes"),
        ("tail", ["--from", "yesterday"], "or now, earliest, snapshot, last:N or ago:5m"),
        ("tail", ["--from", "last:0"], "whole number from 1"),
        ("tail", ["--from", "ago:5"], "such as ago:5m"),
        ("tail", ["--from", "ago:m"], "such as ago:5m"),
        ("tail", ["--from", "ago:5w"], "such as ago:5m"),
        ("tail", ["--types", "a b"], "token 'a b'"),
        ("tail", ["ftp://x"], "is no address"),
        ("tail", ["--encoding", "xml"], "'xml' is not one of 'json', 'msgpack'"),
        ("publish", ["--type", "a", "--entity", "b", "--data", "text"], "a string needs its own quotes"),
        ("publish", ["--type", "a b", "--entity", "b", "--data", "1"], "type is 'a b'"),
        ("publish", ["--entity", "b", "--data", "1"], "Missing option '--type'"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_status(name, arguments, message, monkeypatch):
    monkeypatch.setattr(commands, "websocket_connect", lambda: _unreachable)
    result = invoke(name, *arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def _unreachable(address, token):
    raise AssertionError("no connection is needed to see this mistake")


def test_ctrl_c_is_quiet(monkeypatch):
    def interrupted(work):
        raise BaseExceptionGroup("", [KeyboardInterrupt()])

    monkeypatch.setattr(trio, "run", interrupted)
    result = invoke("tail")
    assert (result.exit_code, result.output) == (130, "")
