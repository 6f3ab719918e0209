"""The routing tables and rules that make packets from a typed prefix leave by its own gateway."""

from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import Final

from odm_agent.host import HostState, Route, RouteKind, Rule, RuleAction
from odm_agent.model import Family, IPAddress, IPNetwork
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.table import CONFIGURED_AT_MOST, Row

MAIN_TABLE: Final = 254
LOCAL_TABLE: Final = 255
#: The worst metric there is: the last resort of each of our tables.
LAST_METRIC: Final = 0xFFFFFFFF


def last_resort(row: Row, numbers: Numbers) -> Route:
    """What keeps packets from a typed prefix from falling through to somebody else's gateway."""
    table = numbers.table(row.prefix.id)
    return Route(table, row.prefix.family, None, RouteKind.UNREACHABLE, metric=LAST_METRIC)


def routes_of(
    row: Row, source: IPAddress | None, host: HostState, numbers: Numbers
) -> Iterator[Route]:
    """All routes that the prefix should have now, given its first ready address (None: not yet).

    The kernel refuses a preferred source that it does not hold, or that is still tentative.
    """
    prefix = row.prefix
    yield last_resort(row, numbers)
    if row.any_ip:
        yield from any_ip_routes(row)
    link = host.links.get(prefix.interface)
    if source is None or link is None or not link.up:
        return
    yield from _mirrors(row, source, host, numbers)
    yield Route(
        table=numbers.table(prefix.id),
        family=prefix.family,
        destination=None,
        interface=prefix.interface,
        gateway=prefix.gateway,
        source=source,
    )


def any_ip_routes(row: Row) -> list[Route]:
    """The routes that make every address of a large delegated prefix local."""
    return [
        Route(LOCAL_TABLE, row.prefix.family, span, RouteKind.LOCAL, "lo")
        for span in row.prefix.spans
    ]


def _mirrors(row: Row, source: IPAddress, host: HostState, numbers: Numbers) -> Iterable[Route]:
    """The main table's routes, giving our source: else marked packets to neighbours go astray.

    Where main has several of one destination and metric (two uplinks on one network) the one over
    the prefix's own interface is taken, else the first; each link keeps its link-local routes.
    """
    mine = row.prefix.interface
    chosen: dict[tuple[IPNetwork, int, str | None], Route] = {}
    for route in sorted(host.main_routes, key=lambda r: r.interface != mine):
        if route.family is not row.prefix.family or route.destination is None:
            continue
        if route.kind is not RouteKind.UNICAST or route.interface not in host.links:
            continue
        scoped = route.destination.is_link_local or route.destination.is_multicast
        copy = Route(
            table=numbers.table(row.prefix.id),
            family=route.family,
            destination=route.destination,
            interface=route.interface,
            gateway=route.gateway,
            source=None if scoped else source,
            metric=route.metric,
        )
        link = route.interface if scoped else None
        chosen.setdefault((route.destination, route.metric, link), copy)
    return chosen.values()


def rules_of(row: Row, numbers: Numbers) -> list[Rule]:
    """The rules that lead a prefix's packets to its table, by mark and by source.

    Before the latter the main table is asked, but not for its default routes: LAN, container and
    VPN routes stay theirs. That too only for our sources: nobody else's packets meet another order
    of tables than without us.

    Unless the prefix is handed on, that is for packets of our own, and others' packets with such a
    source are refused. What they send *to* us never gets as far: the local table comes first.
    """
    prefix, table = row.prefix, numbers.table(row.prefix.id)
    priority, own = numbers.rule_priority, not prefix.forwarded
    mark, mask = numbers.mark(prefix.id), numbers.mark_mask
    rules = [Rule(prefix.family, priority, table, mark=mark, mask=mask)]
    for source in _sources(row):
        main = Rule(
            family=prefix.family,
            priority=priority + 1,
            table=MAIN_TABLE,
            source=source,
            suppress_prefix_length=0,
            local_only=own,
        )
        rules += [main, Rule(prefix.family, priority + 2, table, source=source, local_only=own)]
        if own:
            rules.append(refusal(source, numbers))
    return rules


def refusal(source: IPNetwork, numbers: Numbers) -> Rule:
    """What answers packets from a typed network that no rule before has led to its table."""
    priority = numbers.rule_priority + 3
    return Rule(Family.of(source), priority, 0, source=source, action=RuleAction.PROHIBIT)


def _sources(row: Row) -> tuple[IPNetwork, ...]:
    """What is routed by source: the whole of the prefix.

    Where others' addresses may lie in it, only our own, so that theirs are routed as ever (unless
    ours are too many for a rule each).
    """
    if row.prefix.untyped_allowed and len(row.addresses) <= CONFIGURED_AT_MOST:
        return tuple(ip_network(a) for a in row.addresses)
    return row.prefix.spans
