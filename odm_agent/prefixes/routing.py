"""The routing tables and rules that make packets from a typed prefix leave by its own gateway."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Final

from odm_agent.core.host import HostState, LocalAddress, Route, RouteKind, Rule, RuleAction
from odm_agent.core.model import CONFIGURED_AT_MOST, Family, IPAddress, IPNetwork, TypedPrefix
from odm_agent.prefixes.mirror import Mirror
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.table import PrefixTable, Row

LOCAL_TABLE: Final = 255
MAIN_TABLE: Final = 254
#: The kernel's own rule for main has the next priority; so has wg-quick's, which then come first.
_BEFORE_MAIN: Final = 32765
#: The worst metric there is: the last resort of each of our tables.
LAST_METRIC: Final = 0xFFFFFFFF
#: The next one: where there is a way, that is taken.
_WAITING_METRIC: Final = LAST_METRIC - 1


def last_resort(family: Family, number: int, numbers: Numbers) -> Route:
    """What keeps packets from a typed prefix, in the table of that number, from falling through to
    somebody else's gateway.
    """
    table = numbers.table(number)
    return Route(table, family, None, RouteKind.UNREACHABLE, metric=LAST_METRIC)


def routes_of(
    row: Row, sources: Mapping[int, IPAddress], mirror: Mirror, numbers: Numbers
) -> Iterator[Route]:
    """All routes that the prefix should have now: its table, and one for each seat.

    `sources` has the first ready address of each of these, by their numbers.

    The kernel refuses a preferred source that it does not hold, or that is still tentative. Routes
    outlast the carrier, as the kernel's own do: a connection goes on when it is back. Those of a
    delegated prefix don't, since another network may be found there, which must not see its source.
    Nor does anything leave by the route of one that waits: hooks drop what is sent, and of what
    passes by them (it is forwarded, say) no neighbour is the destination.
    """
    prefix = row.prefix
    if row.any_ip:
        yield from any_ip_routes(row)
    for number in (prefix.id, *(seat.number for seat in prefix.seats)):
        yield last_resort(prefix.family, number, numbers)
        if (source := sources.get(number)) is not None:
            yield from _ways_of(row, source, mirror, numbers.table(number))


def _ways_of(row: Row, source: IPAddress, mirror: Mirror, table: int) -> Iterator[Route]:
    prefix = row.prefix
    yield from mirror.copies(row, source, table)
    if not is_set_up(prefix, mirror.host):
        return
    if (way := mirror.way(row)) is not None:
        yield replace(way, table=table, source=source)
    elif prefix.waits:
        yield Route(
            *(table, prefix.family, None),
            interface=prefix.interface,
            source=source,
            metric=_WAITING_METRIC,
        )


def is_set_up(prefix: TypedPrefix, host: HostState) -> bool:
    """Whether routes can lead by a prefix's interface, whether it has a carrier or not."""
    link = host.links.get(prefix.interface)
    return link is not None and link.enabled and not link.lacks(prefix.family)


def any_ip_routes(row: Row) -> list[Route]:
    """The routes that make every address of a large delegated prefix local."""
    return [
        Route(LOCAL_TABLE, row.prefix.family, span, RouteKind.LOCAL, "lo")
        for span in row.prefix.spans
    ]


def rules_of(row: Row, numbers: Numbers) -> list[Rule]:
    """The rules that lead a prefix's packets to its table, by mark and by source alike.

    Both ways ask that table alone, so that no route holds for sockets of one way only. Where
    classes have addresses of their own, the mark of each leads to a table in which its own is the
    source.

    Unless the prefix is handed on, that is for packets of our own, and others' packets with such a
    source are refused. What they send *to* us never gets as far: the local table comes first.
    """
    prefix, table = row.prefix, numbers.table(row.prefix.id)
    priority, own = numbers.rule_priority, not prefix.forwarded
    rules = (
        [mark_rule(prefix.family, prefix.mark_id, table, numbers)] if not prefix.by_class else []
    )
    rules += [
        mark_rule(prefix.family, seat.number, numbers.table(seat.number), numbers)
        for seat in prefix.seats
    ]
    for source in _sources(row):
        # The next priority is left to a rule of earlier versions, which an upgrade removes.
        rules.append(Rule(prefix.family, priority + 2, table, source=source, local_only=own))
        if own:
            rules.append(refusal(source, numbers))
    return rules


def mark_rule(family: Family, number: int, table: int, numbers: Numbers) -> Rule:
    """The rule that leads packets with the mark of a number to a table."""
    mark, mask = numbers.mark(number), numbers.mark_mask
    return Rule(family, numbers.rule_priority, table, mark=mark, mask=mask)


def exemptions(table: PrefixTable, host: HostState, numbers: Numbers) -> Iterator[Rule]:
    """The rules by which addresses that the network gave us in a typed prefix pass by all others.

    They are not of the prefix, so they are routed as without us: the walk goes on behind our rules.
    """
    end = numbers.rule_priority + 4
    for local in theirs_inside(table, host):
        family = Family.of(local.address)
        yield Rule(family, end, 0, action=RuleAction.NOTHING)
        yield Rule(
            family=family,
            priority=numbers.rule_priority + 1,
            table=0,
            source=ip_network(local.address),
            local_only=True,
            action=RuleAction.GOTO,
            goto=end,
        )


def elsewhere(table: PrefixTable, host: HostState, numbers: Numbers) -> Iterator[Route | Rule]:
    """What leads everybody else past exclusive uplinks, whose addresses they may not send from.

    A table of main's other default routes, asked right before main: so what others' rules say comes
    first (a tunnel for everything, say), and main's other routes do. Without such a default route
    there is nothing: who is of no class has no address then, which is an alarm.
    """
    exclusive = [row.prefix for row in table if row.prefix.exclusive and row.addresses]
    for family in sorted({prefix.family for prefix in exclusive}):
        taken = {prefix.interface for prefix in exclusive if prefix.family is family}
        others = [
            replace(route, table=numbers.table(0))
            for route in host.main_routes
            if route.family is family
            and route.destination is None
            and not route.interfaces & taken
            and all(name in host.links and host.links[name].up for name in route.interfaces)
        ]
        if not others:
            continue
        yield from others
        yield Rule(family, _BEFORE_MAIN - 1, MAIN_TABLE, suppress_prefix_length=0, local_only=True)
        yield Rule(family, _BEFORE_MAIN, numbers.table(0), local_only=True)


def theirs_inside(table: PrefixTable, host: HostState) -> list[LocalAddress]:
    """The addresses that the network gave to this host in prefixes that say nothing of such."""
    return [
        local
        for local in host.addresses
        if local.from_network and not local.ours
        if (row := table.span_of(local.address))
        and not (row.prefix.untyped_allowed or row.prefix.managed)
    ]


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
