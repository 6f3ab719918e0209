"""Which exchange a message from the network answers, if any, and what that means for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from odm_agent.sources.dhcpv6.answers import Judged, judged
from odm_agent.sources.dhcpv6.binding import Binding, Held, held
from odm_agent.sources.dhcpv6.messages import Kind, Message
from odm_agent.sources.dhcpv6.outgoing import wish_of
from odm_agent.sources.dhcpv6.settings import Settings
from odm_agent.sources.dhcpv6.transitions import Came, State

#: A server's identifier is a DUID: two octets of type, then 1 to 128 (section 11.1).
_DUID_OCTETS: Final = range(3, 131)
#: A preference with which a server need not be compared with others (section 21.8).
_TAKE_ME: Final = 255


@dataclass(frozen=True, slots=True)
class News:
    """What has come to a binding by a message, and what that gives."""

    came: Came
    found: Judged | None = None
    given: Held | None = None


def router_of(sender: str) -> IPv6Address | None:
    """The link-local address of who sent a message on the link; None: it came from elsewhere."""
    try:
        address = IPv6Address(sender.partition("%")[0])
    except ValueError:
        return None
    return address if address.is_link_local else None


def asker_of(message: Message, bindings: Iterable[Binding], client: bytes) -> Binding | None:
    """The binding whose exchange a message answers (RFC 8415, section 16)."""
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


def news_of(
    message: Message, binding: Binding, router: IPv6Address, settings: Settings, now_s: float
) -> News | None:
    """What an answer means for the binding that asked; None: nothing, or nothing yet."""
    if binding.state is State.RELEASING:
        return News(Came.ANSWERED)
    found = judged(message, wish_of(binding, settings))
    if found is None:
        return None
    gives = found.came in (Came.GIVEN, Came.WRONG)
    if message.kind is Kind.ADVERTISE or (binding.state is State.SOLICITING and not gives):
        return _collected(binding, found)
    if found.came is Came.GIVEN and found.prefix and found.ia_pd:
        return News(found.came, found, held(found.prefix, found.ia_pd, router, now_s))
    return News(found.came, found)


def _collected(binding: Binding, found: Judged) -> News | None:
    """Advertises of the first second are compared, later ones taken as they come (18.2.1)."""
    is_late = binding.schedule is not None and binding.schedule.sent > 1
    preference = found.message.preference
    if found.came is not Came.GIVEN:
        binding.misfit = found
        return News(Came.REFUSED) if is_late else None
    if binding.best is None or preference > binding.best.message.preference:
        binding.best = found
    return News(Came.OFFERED) if is_late or preference == _TAKE_ME else None
