"""A server that has lost its lease database takes away what it can't look up: nobody need follow.

Kea answers the first Renew with NoPrefixAvail and lifetimes of 0, then with silence. The prefix is
the host's as long as it was told before.
"""

from collections.abc import Iterator
from ipaddress import IPv6Address
from itertools import dropwhile

import pytest

from tests.lab.agent import LabClass
from tests.lab.host import SESSION
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.netlab.dissect import Seen, Wire, wire
from tests.netlab.kea import Rules, Terms
from tests.netlab.plan import WireType
from tests.netlab.probe_client import Message, Status
from tests.netlab.roaming import Roamer
from tests.netlab.topology import NetLab

pytestmark = needs_root

#: Renewed soon; what is told in a Reply is long enough for the whole test. Nothing but a Renew
#: shall tell Kea that its database is lost.
_TERMS = Rules(terms={WireType.SESSION_LASTING: Terms(300, 600, 4, 200)}, reclaim_s=3600)
_ASKING = (Message.SOLICIT, Message.REQUEST, Message.RENEW, Message.REBIND)
_DELEGATION = {"interface": "w0", "types": [SESSION.word], "at_start": [SESSION.word]}


@pytest.fixture
def roamer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roamer]:
    classes = {"session": LabClass(allow=(SESSION,), default=SESSION)}
    with (
        NetLab(_TERMS) as lab,
        Roamer(lab, tmp_path_factory.mktemp("lost"), classes, {"isp": _DELEGATION}) as made,
    ):
        yield made


@pytest.fixture
def link(roamer: Roamer) -> Iterator[Wire]:
    with wire(roamer.netns, "w0", roamer.lab.folder) as made:
        yield made


def test_N1_a_prefix_outlives_an_outage_of_the_server_s_database(
    roamer: Roamer, link: Wire
) -> None:
    network, source = roamer.prefix("isp", SESSION), roamer.source("isp", SESSION)

    def takes_away(each: Seen) -> bool:
        return (
            each.message is Message.REPLY
            and each.ia.status == Status.NO_PREFIX_AVAIL
            and [(one.prefix, one.valid) for one in each.ia.prefixes] == [(network, 0)]
        )

    def asked_then() -> list[Message]:
        """What the host has sent since Kea has first taken it away."""
        since = list(dropwhile(lambda each: not takes_away(each), link.messages()))
        return [each.message for each in since if each.message in _ASKING]

    roamer.lab.postgres.stop()
    try:
        wait_until(lambda: any(map(takes_away, link.messages())), "Kea takes it away", 40)
        wait_until(lambda: bool(asked_then()), "any server is asked", 60)
        assert asked_then()[0] is Message.REBIND, "after a refusal, no other message comes first"
        assert roamer.fetch("session", "in-the-outage", source) == "hello"
        assert roamer.lab.nginx.logged("in-the-outage") == {str(source)}
        assert not roamer.events("withdrawn")
    finally:
        roamer.lab.postgres.start()

    def prolonged() -> bool:
        return any(
            [(one.prefix, one.valid) for one in each.ia.prefixes] == [(network, 600)]
            for each in link.messages(Message.REPLY)[-1:]
        )

    wait_until(prolonged, "Kea prolongs it again", 60)
    assert roamer.prefix("isp", SESSION) == network
    assert roamer.fetch("session", "after-it") == "hello"
    (seen,) = roamer.lab.nginx.logged("after-it")
    assert IPv6Address(seen) in network
    assert {each.prefix for each in roamer.lab.a.kea.leases()} == {network}
