"""Delegations as the shapes that the control socket answers with."""

from odm_agent.agent.delegations import Asked, Delegations
from odm_agent.control.answers import DelegatedView, DelegationView
from odm_agent.core.clock import left_s
from odm_agent.sources.dhcpv6.standing import Standing


def delegations(asked: Delegations, at_s: float) -> list[DelegationView]:
    """All that are configured, as of then (boot-time seconds)."""
    return [_delegation(each, at_s) for each in asked.standings()]


def _delegation(each: Asked, at_s: float) -> DelegationView:
    return DelegationView(
        name=each.name,
        interface=each.interface,
        linked=each.linked,
        trouble=each.trouble,
        types=[_delegated(standing, at_s) for standing in each.standings],
    )


def _delegated(each: Standing, at_s: float) -> DelegatedView:
    lifetime = each.lifetime
    return DelegatedView(
        type=each.type.word,
        state=each.state,
        prefix=str(each.network) if each.network else None,
        preferred_seconds_left=left_s(lifetime.preferred_until_s, at_s) if lifetime else None,
        valid_seconds_left=left_s(lifetime.valid_until_s, at_s) if lifetime else None,
        server=each.server.hex() if each.server else None,
        router=str(each.router) if each.router else None,
        asked_for_seconds=None if each.asked_s is None else max(0.0, at_s - each.asked_s),
        trouble=each.trouble,
    )
