"""Neighbours on links that are lost: what waits for them is given up.

With its carrier a link loses what the kernel knew of its neighbours (`neigh_carrier_down`). What is
sent by it then waits until the neighbour is found again, or for three seconds (RFC 4861, section
10: three solicitations, a second apart). While a packet waits TCP does not send it again, also
where another way is there by then (`skb_still_in_host_queue`). Without the neighbour nothing waits.

A neighbour that is looked for is not simply deleted: each packet that waits for it would be
answered by an error (`neigh_invalidate`), by which a socket that connects fails, though it could
reach its peer by the next link. One that is in no state is forgotten with its packets.
"""

import errno
import socket
from collections.abc import Collection
from typing import Final

from pyroute2.netlink import NLM_F_REPLACE
from pyroute2.netlink.rtnl import RTM_DELNEIGH, RTM_NEWNEIGH
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from odm_agent.core.model import Family, IPAddress
from odm_agent.kernel.links import has_lost_carrier
from odm_agent.kernel.rtnetlink import Rtnetlink, change

_AF: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
#: Nobody knows it there, or the link itself is gone.
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})


def give_up(netlink: Rtnetlink, gateways: Collection[tuple[int, IPAddress]]) -> None:
    """Forget those gateways, by the number of their link, whose link has no carrier.

    Others' packets to the same gateway are given up, too, as they would be after three seconds.
    A refusal changes nothing but how soon that is.
    """
    indexes = {index for index, _ in gateways}
    lost = {index for index in indexes if has_lost_carrier(netlink, index)}
    netlink.carry_out(
        (
            [
                change(_message(index, each), RTM_NEWNEIGH, NLM_F_REPLACE),
                change(_message(index, each), RTM_DELNEIGH),
            ]
            for index, each in gateways
            if index in lost
        ),
        _GONE,
    )


def _message(index: int, gateway: IPAddress) -> ndmsg:
    message = ndmsg()
    message["family"] = _AF[Family.of(gateway)]
    message["ifindex"] = index
    message["state"] = 0  # NUD_NONE
    message["attrs"] = [("NDA_DST", str(gateway))]
    return message
