"""Which exchange a message from the network answers, if any (RFC 8415, section 16)."""

from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Final

from odm_agent.sources.dhcpv6.binding import Binding
from odm_agent.sources.dhcpv6.messages import Kind, Message
from odm_agent.sources.dhcpv6.transitions import State

#: A server's identifier is a DUID: two octets of type, then 1 to 128 (section 11.1).
_DUID_OCTETS: Final = range(3, 131)


def router_of(sender: str) -> IPv6Address | None:
    """The link-local address of who sent a message on the link; None: it came from elsewhere."""
    try:
        address = IPv6Address(sender.partition("%")[0])
    except ValueError:
        return None
    return address if address.is_link_local else None


def asker_of(message: Message, bindings: Iterable[Binding], client: bytes) -> Binding | None:
    """The binding whose exchange a message answers."""
    server = message.server
    if message.client != client or server is None or len(server) not in _DUID_OCTETS:
        return None
    asker = next((each for each in bindings if each.is_asking(message.xid)), None)
    if asker is None or asker.schedule is None:
        return None
    if asker.schedule.exchange.to_one and server != asker.server:
        return None
    soliciting = asker.state is State.SOLICITING
    if message.kind is Kind.ADVERTISE:
        return asker if soliciting else None
    solicited = soliciting or (asker.state is State.LEAVING and asker.server is None)
    if message.kind is Kind.REPLY and (message.rapid_commit or not solicited):
        return asker
    return None
