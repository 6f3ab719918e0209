"""What the kernel holds after a plan that only added to it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from odm_agent.core.actions import AddLabel, AddRoute, AddRule, KernelAction
from odm_agent.core.host import HostState, LocalAddress, Route, RouteKind
from odm_agent.core.model import Family


def with_added(
    host: HostState, added: Iterable[KernelAction], addresses: Sequence[LocalAddress]
) -> HostState:
    """`host` with what was carried out since it was read, and the addresses as they are now."""
    routes, rules, labels = dict.fromkeys(host.routes), set(host.rules), set(host.labels)
    for action in added:
        match action:
            case AddRoute(route):
                for old in [each for each in routes if _gives_way(each, route)]:
                    del routes[old]
                routes[route] = None
            case AddRule(rule):
                rules.add(rule)
            case AddLabel(address):
                labels.add(address)
    return replace(
        host,
        addresses=tuple(addresses),
        routes=frozenset(routes),
        rules=frozenset(rules),
        labels=frozenset(labels),
    )


def _gives_way(old: Route, new: Route) -> bool:
    """Whether a route takes the other one's place, as `kernel.routes` adds it: those straight to an
    interface stand beside others, but IPv6 has one of each interface.
    """
    same = (old.family, old.table, old.destination, old.metric, old.tos) == (
        *(new.family, new.table, new.destination, new.metric, new.tos),
    )
    if new.kind is RouteKind.UNICAST and new.gateway is None and not new.hops:
        return same and new.family is Family.IPV6 and old.interfaces == new.interfaces
    return same
