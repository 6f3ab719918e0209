"""Packets that are no answers, sixty thousand of them: none raises, none changes anything."""

from copy import deepcopy
from ipaddress import IPv6Address
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from odm_agent.core.events import Tick
from odm_agent.sources.base import Received
from odm_agent.sources.dhcpv6.codec import MalformedError, packed, parsed
from odm_agent.sources.dhcpv6.messages import IAPD, Codes, IAPrefix, Kind, Message, Status
from tests.virtual.damage import Edit, damaged, edited
from tests.virtual.delegated import DUID, FIXED, SESSION, SETTINGS, Link
from tests.virtual.dhcpv6_server import Server

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


#: Valid packets, by which hypothesis begins; without edits they say nothing that was asked for.
SAMPLES = tuple(packed(valid(Random(number), DUID), CODES) for number in range(64))
PACKETS = st.one_of(st.binary(max_size=200), edited(st.sampled_from(SAMPLES)))


@pytest.fixture(scope="module")
def watched() -> list[tuple[Link, set[int], str]]:
    """Each link, with the transactions that it waits for, and all that its source knows."""
    links = states()
    for each in links:
        each.give(Tick())
    kinds = {kind for each in links for kind in each.kinds}
    assert kinds == {*Kind} - {Kind.ADVERTISE, Kind.REPLY}, "each of them is waited for"
    return [(each, {m.xid for _, m in each.sent}, snapshot(each)) for each in links]


@pytest.mark.timeout(600)
@settings(max_examples=60_000)
@given(data=PACKETS, number=st.integers(0, 4))
def test_what_answers_nothing_changes_nothing(
    watched: list[tuple[Link, set[int], str]], data: bytes, number: int
) -> None:
    link, xids, before = watched[number]
    try:
        message: Message | None = parsed(data, link.codes)
    except MalformedError:
        message = None
    assume(message is None or message.xid not in xids)
    assert not link.give(Received(data, SENDER))
    assert snapshot(link) == before


def test_half_of_it_is_one_kind_of_packet() -> None:
    """Neither do all samples parse once they are edited, nor hardly any."""
    random, parsable, tried = Random(SEED), 0, 2000
    for _ in range(tried):
        edits = [(random.choice(list(Edit)), random.randrange(400), random.randbytes(4))]
        try:
            parsed(damaged(random.choice(SAMPLES), edits), CODES)
            parsable += 1
        except MalformedError:
            pass
    assert tried / 20 < parsable < tried * 19 / 20
