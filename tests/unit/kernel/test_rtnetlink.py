"""Dumps are taken again when the kernel says that its tables changed beneath them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pyroute2.netlink import NLM_F_DUMP_INTR, NLM_F_MULTI, NLMSG_DONE
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted
from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_NEWADDR
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from odm_agent.kernel.rtnetlink import dump

Part = dict[str, Any]


def part(kind: int, *, interrupted: bool) -> Part:
    flags = NLM_F_MULTI | (NLM_F_DUMP_INTR if interrupted else 0)
    return {"header": {"type": kind, "flags": flags}}


class Source:
    """In place of pyroute2's socket: as many interrupted answers as said, then whole ones."""

    def __init__(self, interrupted: int, *, at_the_end: bool) -> None:
        self._left = interrupted
        self._at_the_end = at_the_end
        self.asked = 0

    async def nlm_request(
        self, request: object, kind: int, flags: int, *, callback: Callable[[Part], bool]
    ) -> AsyncIterator[Part]:
        self.asked += 1
        broken = self._left > 0
        self._left -= 1
        objects = [part(RTM_NEWADDR, interrupted=broken and not self._at_the_end)] * 2
        for each in [*objects, part(NLMSG_DONE, interrupted=broken)]:
            assert not callback(each), "a callback that says true takes the message away"

        async def answer() -> AsyncIterator[Part]:
            for each in objects:
                yield each

        return answer()


@pytest.mark.parametrize("at_the_end", [False, True])
def test_an_interrupted_dump_is_taken_again(at_the_end: bool) -> None:
    source = Source(3, at_the_end=at_the_end)
    assert len(asyncio.run(dump(source, RTM_GETADDR, ifaddrmsg()))) == 2
    assert source.asked == 4


def test_dumps_that_are_always_interrupted_are_an_error_after_a_while() -> None:
    with pytest.raises(NetlinkDumpInterrupted, match="changed during each"):
        asyncio.run(dump(Source(1000, at_the_end=False), RTM_GETADDR, ifaddrmsg()))
