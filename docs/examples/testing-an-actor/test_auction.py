import pytest
import trio
from auction import Lot, app


async def test_the_highest_bidder_gets_it_when_the_time_is_up(heliograph_server, virtual_time):
    async with heliograph_server(app) as server:
        await server.env.auctions.get_by_name("vase").open(3600)
        async with server.connect("/auctions/vase?as=ann") as ann, server.connect("/auctions/vase?as=ben") as ben:
            await ann.send_message("500")
            assert await ben.get_message() == "ann bids 500"
            await ben.send_message("500")
            assert await ben.get_message() == "too low, or too late"
            await trio.sleep(3601)
            assert await ben.get_message() == "sold to ann"
        answer = await server.request("GET", "/auctions/vase")
        assert answer.body == b'{"bidder":"ann","cents":500,"sold":true}'


async def test_bids_and_bidders_outlive_the_instance(heliograph_server, virtual_time):
    async with heliograph_server(app) as server:
        vase = server.env.auctions.get_by_name("vase")
        await vase.open(3600)
        async with server.connect("/auctions/vase?as=ann") as ann:
            assert not await vase.bid("ben", 0)
            assert await server.run_in(vase, lambda auction: auction.refused) == 1
            await server.evict(vase)
            await ann.send_message("700")
            assert await ann.get_message() == "ann bids 700"
            assert await server.run_in(vase, lambda auction: auction.refused) == 0


async def test_what_was_answered_survives_a_crash(heliograph_server, virtual_time):
    async with heliograph_server(app) as server:
        vase = server.env.auctions.get_by_name("vase")
        await vase.open(3600)
        assert await vase.bid("ann", 500)
        await server.crash()
        await server.start()
        await trio.sleep(3601)
        vase = server.env.auctions.get_by_name("vase")
        assert await server.run_in(vase, lambda auction: auction.lot) == Lot("ann", 500, sold=True)


async def test_the_alarm_can_be_run_before_its_time(heliograph_server, virtual_time):
    async with heliograph_server(app) as server:
        vase = server.env.auctions.get_by_name("vase")
        await vase.open(3600)
        with pytest.raises(LookupError, match="nobody has bid yet"):
            await server.run_alarm(vase)
        await vase.bid("ann", 500)
        assert await server.run_alarm(vase)
        assert not await server.run_alarm(vase)  # there is none left


async def test_an_alarm_that_fails_is_tried_again(heliograph_server, virtual_time):
    async with heliograph_server(app) as server:
        vase = server.env.auctions.get_by_name("vase")
        await vase.open(60)
        await trio.sleep(61)  # it failed, and comes back after 2 s
        await server.run_in(vase, place_a_bid)
        await trio.sleep(3)
        assert (await server.run_in(vase, lambda auction: auction.lot)).sold


async def place_a_bid(auction):
    auction.lot = Lot("ann", 500)


async def test_an_auction_sleeps_while_nothing_happens(heliograph_server, virtual_time):
    async with heliograph_server(app) as server:
        vase = server.env.auctions.get_by_name("vase")
        await vase.open(3600)
        assert server.why_awake(vase) == []
        await trio.sleep(11)
        assert server.live_ids(server.env.auctions) == []
        assert server.list_ids(server.env.auctions) == [vase.id]
