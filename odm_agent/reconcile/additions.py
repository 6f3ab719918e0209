"""What the kernel holds after a plan that only added to it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from odm_agent.core.actions import AddLabel, AddRoute, AddRule, KernelAction
from odm_agent.core.host import HostState, LocalAddress


def with_added(
    host: HostState, added: Iterable[KernelAction], addresses: Sequence[LocalAddress]
) -> HostState:
    """`host` with what was carried out since it was read, and the addresses as they are now."""
    routes, rules, labels = dict.fromkeys(host.routes), set(host.rules), set(host.labels)
    for action in added:
        match action:
            case AddRoute(route):
                for old in [each for each in routes if route.takes_place_of(each)]:
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
