"""A hundred thousand packets that are no answers: none raises, none changes anything."""

from copy import deepcopy
from ipaddress import IPv6Address
from random import Random

import pytest

from odm_agent.core.events import Tick
from odm_agent.sources.base import Received
from odm_agent.sources.dhcpv6.codec import MalformedError, packed, parsed
from odm_agent.sources.dhcpv6.messages import IAPD, Codes, IAPrefix, Kind, Message, Status
from tests.virtual.delegated import DUID, FIXED, SESSION, SETTINGS, Link
from tests.virtual.dhcpv6_server import Server

PACKETS = 100_000
SEED = 8653
CODES = Codes(SETTINGS.option_code, 32473)
SENDER = "fe80::1%w0"


def states() -> list[Link]:
    """Links with sources that solicit, request, hold, renew, rebind and release."""
    silent = Link(servers=[])
    silent.ask(SESSION)
    silent.ask(FIXED)
    bound = Link(servers=[Server(t1_s=100, t2_s=300)])
    bound.ask(SESSION)
    bound.advance(1)
    bound.ask(FIXED)
    bound.lossy = lambda message: True
    bound.advance(150)
    rebinding = deepcopy_of(bound, 200)
    releasing = deepcopy_of(bound, 0)
    releasing.give_back()
    releasing.advance(1.5)
    offered = Link(servers=[Server(rapid=False, preference=255)])
    offered.lossy = lambda message: message.kind is Kind.REQUEST
    offered.ask(SESSION)
    offered.advance(1)
    return [silent, bound, rebinding, releasing, offered]


def snapshot(link: Link) -> str:
    """All that the source knows."""
    source = link.source
    known = (source, source._bindings, source._waiters)
    return repr([vars(each) for each in known]) + repr(list(source._bindings))


def deepcopy_of(link: Link, after_s: float) -> Link:
    lossy, link.lossy = link.lossy, Link.lossy
    copy = deepcopy(link)
    link.lossy = copy.lossy = lossy
    copy.advance(after_s)
    return copy


def valid(random: Random, client: bytes) -> Message:
    """A message as a server might send it, but for the transaction."""
    prefixes = tuple(
        IAPrefix(
            IPv6Address(0x20010DB8 << 96 | random.getrandbits(32) << 64),
            *(
                random.choice((56, 64, 128)),
                random.choice((0, 60)),
                random.choice((0, 120, 2**32 - 1)),
            ),
            service=random.choice((None, 0, 1, 2, 3, 4, 9)),
        )
        for _ in range(random.choice((0, 1, 1, 2, 40)))
    )
    iaid = random.choice((0x02000000, 0x03000000, random.getrandbits(32)))
    ia_pd = IAPD(iaid, 50, 80, prefixes, random.choice((None, *Status)))
    return Message(
        *(random.choice((Kind.REPLY, Kind.ADVERTISE, Kind.SOLICIT)), random.getrandbits(24)),
        client=client,
        server=b"\0\3\0\1\2\0\0\0\0\1",
        ia_pds=(ia_pd,) * random.choice((0, 1, 1, 2)),
        rapid_commit=random.random() < 0.5,
        status=random.choice((None, Status.UNSPEC_FAIL)),
        sol_max_rt_s=random.choice((None, 100)),
        service=random.choice((None, 2)),
        vendor_service=random.choice((None, 2)),
    )


def damaged(data: bytes, random: Random) -> bytes:
    """With some of its octets changed, cut, doubled or moved."""
    octets = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(octets) + 1)
        match random.randrange(6):
            case 0 if at < len(octets):
                octets[at] ^= 1 << random.randrange(8)
            case 1 if at < len(octets):
                octets[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del octets[at:]
            case 3:
                octets[at:at] = random.randbytes(random.randint(1, 9))
            case 4:
                del octets[at : at + random.randint(1, 9)]
            case 5:
                octets[at:at] = octets[: random.randrange(len(octets) + 1)]
    return bytes(octets)


@pytest.mark.timeout(600)
def test_what_answers_nothing_changes_nothing() -> None:
    random = Random(SEED)
    links = states()
    for each in links:
        each.give(Tick())
    kinds = {kind for each in links for kind in each.kinds}
    assert kinds == {*Kind} - {Kind.ADVERTISE, Kind.REPLY}, "each of them is waited for"
    tried = [(each, {m.xid for _, m in each.sent}, snapshot(each)) for each in links]
    parsable = 0
    for number in range(PACKETS):
        link, xids, before = tried[number % len(tried)]
        if number % 4 == 0:
            data = random.randbytes(random.randrange(200))
        else:
            data = packed(valid(random, DUID), CODES)
            data = damaged(data, random) if number % 4 < 3 else data
        try:
            message: Message | None = parsed(data, link.codes)
            parsable += 1
        except MalformedError:
            message = None
        if message is not None and message.xid in xids:
            continue
        where = f"packet {number} of seed {SEED}: {data.hex()}"
        try:
            said = link.give(Received(data, SENDER))
        except Exception as error:
            raise AssertionError(where) from error
        assert not said, where
        if number % 97 < len(tried) or message is not None:
            assert snapshot(link) == before, where
    assert PACKETS / 20 < parsable < PACKETS * 19 / 20, "half of it is one kind of packet"
