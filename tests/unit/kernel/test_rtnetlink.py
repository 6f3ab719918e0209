"""Dumps are taken again when the kernel says that its tables changed beneath them."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyroute2.netlink import NLM_F_DUMP_INTR, NLM_F_MULTI, NLMSG_DONE
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted
from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_NEWADDR
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from odm_agent.kernel.rtnetlink import Rtnetlink
from odm_agent.kernel.wire import HEADER

BODY = bytes(8)  # struct ifaddrmsg


class Source:
    """In place of the kernel: as many interrupted answers as said, then whole ones. Before each is
    the rest of one that nobody waits for any more.
    """

    def __init__(self, interrupted: int, *, at_the_end: bool) -> None:
        self._left = interrupted
        self._at_the_end = at_the_end
        self._answers: Iterator[bytes] = iter(())
        self.asked = 0

    def send(self, request: bytes) -> None:
        self.asked += 1
        broken = self._left > 0
        self._left -= 1
        *_, sequence, _ = HEADER.unpack_from(request)

        def part(kind: int, body: bytes, *, interrupted: bool) -> bytes:
            flags = NLM_F_MULTI | (NLM_F_DUMP_INTR if interrupted else 0)
            return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body

        late = HEADER.pack(HEADER.size + len(BODY), RTM_NEWADDR, NLM_F_DUMP_INTR, sequence - 1, 0)
        parts = [part(RTM_NEWADDR, BODY, interrupted=broken and not self._at_the_end)] * 2
        done = part(NLMSG_DONE, struct.pack("=i", 0), interrupted=broken)
        self._answers = iter([late + BODY + b"".join(parts), done])

    def recv(self, _: int) -> bytes:
        return next(self._answers)


@contextmanager
def answered_by(source: Source) -> Iterator[Rtnetlink]:
    with Rtnetlink() as netlink, pytest.MonkeyPatch.context() as patch:
        patch.setattr(netlink, "_socket", source)
        yield netlink


@pytest.mark.parametrize("at_the_end", [False, True])
def test_an_interrupted_dump_is_taken_again(at_the_end: bool) -> None:
    source = Source(3, at_the_end=at_the_end)
    with answered_by(source) as netlink:
        assert len(netlink.dump(RTM_GETADDR, ifaddrmsg())) == 2
    assert source.asked == 4


def test_dumps_that_are_always_interrupted_are_an_error_after_a_while() -> None:
    with (
        answered_by(Source(1000, at_the_end=False)) as netlink,
        pytest.raises(NetlinkDumpInterrupted, match="changed during each"),
    ):
        netlink.dump(RTM_GETADDR, ifaddrmsg())
