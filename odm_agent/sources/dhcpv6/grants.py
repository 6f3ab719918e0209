"""Grants of what is held, and what is held of the grants that an agent before this one had."""

from ipaddress import IPv6Address

from odm_agent.core.clock import NEVER
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.leases import Lease
from odm_agent.core.model import Placement, TypedPrefix
from odm_agent.sources.dhcpv6.binding import Binding, Held, is_iaid_of
from odm_agent.sources.dhcpv6.settings import Settings
from odm_agent.sources.dhcpv6.transitions import State

#: RFC 8415 has 32 bits for an IAID.
_IAIDS = 1 << 32


def key_of(source: str, binding: Binding) -> GrantKey:
    """The name of what a binding gives."""
    return GrantKey(source, f"{binding.iaid:08x}")


def grant_of(
    source: str,
    binding: Binding,
    held: Held,
    settings: Settings,
    former: IPv6Address | None = None,
) -> Grant:
    """What is held, as the agent holds it. `former`: the router of the network before."""
    seats = settings.seats.get(binding.type, ())
    prefix = TypedPrefix(
        id=0,
        name=f"{settings.name}/{binding.type.word}",
        type=binding.type,
        network=held.network,
        interface=binding.interface,
        gateway=settings.gateway or held.gateway,
        learned_gateway=settings.gateway is None,
        former_gateway=former,
        placement=Placement.DELEGATED,
        spans=(held.network,),
        pool=max(settings.pool, len(seats)),
        preference=settings.preference,
        forwarded=settings.forwarded,
        per_socket=binding.type in settings.per_socket,
        by_class=binding.type in settings.seats,
        seats=seats,
        order=binding.iaid,
        terms=settings.terms_of(binding.type),
        unconfirmed=not binding.confirmed and binding.state is not State.UNSERVED,
        attached=binding.attached,
    )
    release_s = None if binding.type in settings.at_start else settings.release_s
    return Grant(key_of(source, binding), prefix, held.lifetime, release_s)


def binding_of(lease: Lease, settings: Settings, now_s: float) -> Binding | None:
    """The binding of a lease, which any server has to confirm; None: it can't go on."""
    prefix, lifetime = lease.grant.prefix, lease.grant.lifetime
    try:
        iaid = int(lease.grant.key.instance, 16)
    except ValueError:
        return None
    if (
        lifetime is None
        or lifetime.valid_until_s <= now_s
        or prefix.network.version != 6
        or not settings.fits(prefix.interface)
        or prefix.type not in settings.types
        or not 0 <= iaid < _IAIDS
        or not is_iaid_of(prefix.type, iaid)
    ):
        return None
    gateway = prefix.gateway if prefix.gateway and prefix.gateway.version == 6 else None
    held = Held(prefix.network, lifetime, gateway, NEVER, NEVER)
    return Binding(
        *(iaid, prefix.type, State.DETACHED),
        held=held,
        interface=prefix.interface,
        attached=prefix.attached,
    )
