"""The messages of a binding (RFC 8415, section 18.2)."""

from dataclasses import replace
from ipaddress import IPv6Address
from typing import Final

from odm_agent.sources.dhcpv6.answers import Wish
from odm_agent.sources.dhcpv6.binding import Binding
from odm_agent.sources.dhcpv6.codec import SOL_MAX_RT, VENDOR_OPTS
from odm_agent.sources.dhcpv6.messages import IAPD, IAPrefix, Kind, Message
from odm_agent.sources.dhcpv6.settings import Settings
from odm_agent.sources.dhcpv6.transitions import State
from odm_agent.sources.wire_types import to_wire

_ANY: Final = IPv6Address("::")


def wish_of(binding: Binding, settings: Settings) -> Wish:
    """What an answer is held against."""
    network = binding.held.network if binding.is_held and binding.held else None
    return Wish(binding.iaid, binding.type, network, settings.untyped_as)


def message_of(binding: Binding, settings: Settings, client: bytes, now_s: float) -> Message | None:
    """The message that is due; None: the exchange has none.

    One IA_PD in each, since servers look at the first one only, and the type in all of them: a
    Renew without it loses the prefix.
    """
    schedule = binding.schedule
    if schedule is None or (kind := schedule.exchange.kind) is None:
        return None
    type_ = to_wire(binding.type)
    prefixes = tuple(
        IAPrefix(each.address, each.length, service=each.service or type_)
        for each in _prefixes(binding, settings)
    )
    message = Message(
        kind,
        binding.xid,
        client,
        binding.server if schedule.exchange.to_one else None,
        (IAPD(binding.iaid, prefixes=prefixes),),
        elapsed=schedule.elapsed(now_s),
        vendor_service=type_,
    )
    if kind is Kind.RELEASE:
        return message
    codes = (SOL_MAX_RT, settings.option_code)
    vendor = () if settings.enterprise is None else (VENDOR_OPTS,)
    return replace(message, requested=codes + vendor, rapid_commit=kind is Kind.SOLICIT)


def release_of(
    binding: Binding, server: bytes | None, prefixes: tuple[IAPrefix, ...], client: bytes, xid: int
) -> Message:
    """A message that gives back what came by a binding's number, and is not what it holds."""
    type_ = to_wire(binding.type)
    named = tuple(IAPrefix(e.address, e.length, service=e.service or type_) for e in prefixes)
    ia_pds = (IAPD(binding.iaid, prefixes=named),)
    return Message(Kind.RELEASE, xid, client, server, ia_pds, elapsed=0, vendor_service=type_)


def _prefixes(binding: Binding, settings: Settings) -> tuple[IAPrefix, ...]:
    if binding.state in (State.REQUESTING, State.RELEASING):
        return binding.prefixes
    if binding.held is not None and binding.is_held:
        return (binding.held.prefix,)
    return (IAPrefix(_ANY, settings.length),)  # its length alone is a hint (section 18.2.4)
