"""Interfaces, as the kernel lists them."""

from typing import Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_REQUEST
from pyroute2.netlink.rtnl import RTM_GETLINK
from pyroute2.netlink.rtnl.ifinfmsg import IFF_LOWER_UP, IFF_UP, ifinfmsg

from odm_agent.host import Link
from odm_agent.kernel.rtnetlink import dump

_RUNNING: Final[int] = IFF_UP | IFF_LOWER_UP


async def read(route: AsyncIPRoute) -> list[Link]:
    """All interfaces of the namespace."""
    return [
        Link(
            name=each.get_attr("IFLA_IFNAME"),
            index=each["index"],
            up=each["flags"] & _RUNNING == _RUNNING,
        )
        for each in await dump(route, RTM_GETLINK, ifinfmsg())
    ]


async def index_of(route: AsyncIPRoute, name: str) -> int:
    """The number of an interface; raises NetlinkError (ENODEV)."""
    request = ifinfmsg()
    request["attrs"] = [("IFLA_IFNAME", name)]
    # Not link("get") or link_lookup(): they ask for an acknowledgement after the answer, which
    # pyroute2 doesn't wait for and then keeps unread for as long as the socket lives.
    answer = [each async for each in await route.nlm_request(request, RTM_GETLINK, NLM_F_REQUEST)]
    return int(answer[0]["index"])
