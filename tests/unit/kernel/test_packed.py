"""What is packed here is packed as pyroute2 does it."""

import struct

import pytest
from pyroute2.netlink.rtnl import RTM_GETLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWRULE
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from odm_agent.kernel import addresses, links, routespec, rules
from odm_agent.kernel.packed import PackedMessage
from odm_agent.kernel.rtnetlink import change
from odm_agent.kernel.wire import HEADER, attributes

MESSAGES = [
    (routespec._Message, rtmsg, RTM_NEWROUTE),
    (rules._Message, fibmsg, RTM_NEWRULE),
    (addresses._Message, ifaddrmsg, RTM_NEWADDR),
    (links._Question, ifinfmsg, RTM_GETLINK),
]


@pytest.mark.parametrize(("mine", "theirs", "kind"), MESSAGES)
def test_header_and_fields_are_packed_as_by_pyroute2(
    mine: type[PackedMessage], theirs: type, kind: int
) -> None:
    ours, other = change(mine(), kind, 0x400), change(theirs(), kind, 0x400)
    for number, name in enumerate(mine._names[:-1], 1):  # one is left out
        ours[name] = other[name] = number
    ours.encode()
    other.encode()
    assert bytes(ours.data) == bytes(other.data)


def test_attributes_follow_each_padded_and_the_length_counts_all() -> None:
    message = change(rules._Message(), RTM_NEWRULE)
    message["attrs"] = [(3, b"lo\0"), (15, struct.pack("=I", 7))]
    message.encode()
    length, *_ = HEADER.unpack_from(message.data)
    assert length == len(message.data) == HEADER.size + 12 + 8 + 8
    assert attributes(bytes(message.data), HEADER.size + 12) == {
        3: b"lo\0",
        15: struct.pack("=I", 7),
    }
