"""What an Advertise or a Reply means for a binding (RFC 8415, sections 18.2.9 and 18.2.10)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from typing import Final

from odm_agent.core.events import Failure
from odm_agent.core.model import AddressType
from odm_agent.sources.dhcpv6.messages import IAPD, IAPrefix, Message, Status
from odm_agent.sources.dhcpv6.transitions import Came
from odm_agent.sources.wire_types import from_wire, to_wire

#: How many prefixes of an IA_PD are looked at; one was asked for.
MOST_PREFIXES: Final = 8
#: A host may be given networks of so many bits: a whole site, or one link.
_LENGTHS: Final = range(48, 65)
#: Unicast that is routed beyond a link: global, and unique local (RFC 4291, RFC 4193).
_ROUTED: Final = (IPv6Network("2000::/3"), IPv6Network("fc00::/7"))


@dataclass(frozen=True, slots=True)
class Wish:
    """What a binding asks for; `held` is the network that it has."""

    iaid: int
    type: AddressType
    held: IPv6Network | None = None
    untyped_as: AddressType | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What came; `prefix` is what was given, `prefixes` what has to be given back otherwise.

    `cause` and `kind` say why it is not what was wished for.
    """

    came: Came
    message: Message
    ia_pd: IAPD | None = None
    prefix: IAPrefix | None = None
    prefixes: tuple[IAPrefix, ...] = ()
    cause: str = ""
    kind: Failure = Failure.REFUSED


def network_of(prefix: IAPrefix) -> IPv6Network:
    """Its network; bits behind the length mean nothing (section 21.22)."""
    return IPv6Network((prefix.address, prefix.length), strict=False)


def judged(message: Message, wish: Wish) -> Judged | None:
    """What a message says of a wish; None: nothing that counts."""
    ia_pd = next((each for each in message.ia_pds if each.iaid == wish.iaid), None)
    if ia_pd is None:
        if message.status in (None, Status.SUCCESS):
            return None
        return Judged(Came.REFUSED, message, cause=f"the server says {_said(message.status)}")
    if ia_pd.t1_s > ia_pd.t2_s > 0:  # section 21.21: such an IA_PD is discarded
        return None
    status = ia_pd.status or message.status
    if status == Status.NO_BINDING:
        return Judged(Came.NO_BINDING, message, ia_pd, cause="the server has lost the binding")
    if status not in (None, Status.SUCCESS):
        # Whatever lifetimes stand beside it: a server whose database is away says that it has no
        # prefix, and gives the held one with none.
        return Judged(Came.REFUSED, message, ia_pd, cause=f"the server says {_said(status)}")
    return _of_prefixes(message, ia_pd, wish)


def _of_prefixes(message: Message, ia_pd: IAPD, wish: Wish) -> Judged | None:
    given = ia_pd.prefixes[:MOST_PREFIXES]
    live = [each for each in given if _is_live(each, wish)]
    fitting = [each for each in live if _serves(each, ia_pd, message, wish)]
    if fitting:
        best = max(fitting, key=lambda each: (each.preferred_s > 0, network_of(each) == wish.held))
        return Judged(Came.GIVEN, message, ia_pd, best)
    ended = any(not each.valid_s and network_of(each) == wish.held for each in given)
    kept = any(network_of(each) == wish.held for each in live)
    if live and (wish.held is None or ended or kept):
        said = _type_of(live[0], ia_pd, message)
        if said is None:
            cause, kind = "the network does not know types of prefixes", Failure.UNSUPPORTED
        else:
            cause, kind = f"the network gave one that is {said.word}", Failure.REFUSED
        back = tuple(replace(each, service=said and to_wire(said)) for each in live)
        return Judged(Came.WRONG, message, ia_pd, None, back, cause, kind)
    if ended:
        return Judged(Came.TAKEN_BACK, message, ia_pd, cause="the server took it back")
    return Judged(Came.REFUSED, message, ia_pd, cause="the server gave no prefix that can be used")


def _is_live(prefix: IAPrefix, wish: Wish) -> bool:
    """Whether it is one that a host can have; what is held may be deprecated, nothing new."""
    network = network_of(prefix)
    return (
        0 < prefix.valid_s >= prefix.preferred_s
        and (prefix.preferred_s > 0 or network == wish.held)
        and prefix.length in _LENGTHS
        and any(network.subnet_of(each) for each in _ROUTED)
    )


def _serves(prefix: IAPrefix, ia_pd: IAPD, message: Message, wish: Wish) -> bool:
    said = _type_of(prefix, ia_pd, message)
    if said is None and network_of(prefix) == wish.held:
        return True  # it has the type by which it was given
    return (said or wish.untyped_as) == wish.type


def _type_of(prefix: IAPrefix, ia_pd: IAPD, message: Message) -> AddressType | None:
    """Its type, by the narrowest option that names one: stock servers can't place it everywhere."""
    said: Iterable[int | None] = (
        prefix.service,
        ia_pd.service,
        message.service,
        message.vendor_service,
    )
    return next((t for n in said if n is not None and (t := from_wire(n)) is not None), None)


def _said(status: Status | None) -> str:
    return "nothing" if status is None else _WORDS[status]


#: As section 21.13 spells them.
_WORDS: Final = {
    Status.SUCCESS: "Success",
    Status.UNSPEC_FAIL: "UnspecFail",
    Status.NO_ADDRS_AVAIL: "NoAddrsAvail",
    Status.NO_BINDING: "NoBinding",
    Status.NOT_ON_LINK: "NotOnLink",
    Status.USE_MULTICAST: "UseMulticast",
    Status.NO_PREFIX_AVAIL: "NoPrefixAvail",
}
