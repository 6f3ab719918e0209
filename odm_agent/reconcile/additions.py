"""What the kernel holds after a plan: as it is to be, and as it is taken to be until it is read."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from odm_agent.core.actions import (
    ADDITIONS,
    Action,
    AddLabel,
    AddRoute,
    AddRule,
    KernelAction,
    RemoveLabel,
    RemoveRoute,
    RemoveRule,
)
from odm_agent.core.host import HostState, LocalAddress, Route
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.routing import any_ip_routes, last_resort, rules_of
from odm_agent.prefixes.table import PrefixTable, Row

_LOOPBACK = "lo"


def foreseen(
    table: PrefixTable, offered: Collection[int], host: HostState, numbers: Numbers
) -> HostState:
    """`host` as it will be when the prefixes that are new are configured on `lo`, where nobody else
    has a say in it. `offered` are those of which hooks know: these are not new.

    A plan for that can go from the addresses to what hooks are given, without a look between; but
    what it offers has to wait until a look has shown that it is there (`parted`).
    """
    new = [row for row in table if row.prefix.id not in offered and _is_new(row, host)]
    if not new:
        return host
    added = [
        LocalAddress(address, address.max_prefixlen, _LOOPBACK, ours=True)
        for row in new
        for address in row.configured
    ]
    routes = [route for row in new for route in _routes_without_source(row, numbers)]
    rules = [rule for row in new for rule in rules_of(row, numbers)]
    return replace(
        host,
        addresses=(*host.addresses, *added),
        routes=host.routes.union(routes),
        rules=host.rules.union(rules),
    )


def _is_new(row: Row, host: HostState) -> bool:
    link = host.links.get(row.holder)
    return (
        not row.prefix.managed
        and row.holder == _LOOPBACK
        and link is not None
        and not link.lacks(row.prefix.family)
        and not any(host.at(address, _LOOPBACK) for address in row.configured)
    )


def _routes_without_source(row: Row, numbers: Numbers) -> list[Route]:
    """Those that hooks count on."""
    family, seats = row.prefix.family, [seat.number for seat in row.prefix.seats]
    resorts = [last_resort(family, number, numbers) for number in (row.prefix.id, *seats)]
    return [*resorts, *(any_ip_routes(row) if row.any_ip else ())]


def parted(actions: Sequence[Action]) -> tuple[list[Action], list[Action]]:
    """A plan up to its last addition to the kernel, and what it offers then."""
    last = max((n for n, each in enumerate(actions) if isinstance(each, ADDITIONS)), default=-1)
    return [*actions[: last + 1]], [*actions[last + 1 :]]


def with_done(
    host: HostState, done: Iterable[KernelAction], addresses: Sequence[LocalAddress]
) -> HostState:
    """`host` with what was carried out since it was read, and the addresses as they are now. What
    else has changed by that (a route whose source is gone) is found when all is read.
    """
    routes, rules, labels = dict.fromkeys(host.routes), set(host.rules), set(host.labels)
    for action in done:
        match action:
            case AddRoute(route):
                for old in [each for each in routes if route.takes_place_of(each)]:
                    del routes[old]
                routes[route] = None
            case AddRule(rule):
                rules.add(rule)
            case AddLabel(address):
                labels.add(address)
            case RemoveRoute(route):
                routes.pop(route, None)
            case RemoveRule(rule):
                rules.discard(rule)
            case RemoveLabel(address):
                labels.discard(address)
    return replace(
        host,
        addresses=tuple(addresses),
        routes=frozenset(routes),
        rules=frozenset(rules),
        labels=frozenset(labels),
    )
