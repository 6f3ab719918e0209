"""Rules of others that are asked before ours, and so decide about typed packets: an alarm.

A rule added without a priority stands before all that are there (ip-rule(8)), so this happens as
soon as a VPN comes up. What takes packets to some networks only is left alone, as such routes of
the main table are; what takes them all keeps them from their gateway.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from odm_agent.core.host import ForeignRule, HostState, Route, RouteKind
from odm_agent.core.model import Family, IPNetwork, TypedPrefix
from odm_agent.prefixes.mirror import takes_everything, takes_half
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.table import PrefixTable

_MAIN_TABLE: Final = 254
#: Our rules take their own priority, and up to three more.
_OURS: Final = 4
#: Whose packets come in by no interface (ip-rule(8)).
_OWN: Final = "lo"


@dataclass(frozen=True, slots=True)
class Typed:
    """What rules can tell a prefix's packets by; `name` is for people."""

    name: str
    family: Family
    spans: tuple[IPNetwork, ...]
    interface: str
    mark: int
    table: int

    @classmethod
    def all_of(cls, table: PrefixTable, numbers: Numbers) -> "list[Typed]":
        """Those of the typed prefix table."""
        return [
            cls(
                prefix.name,
                prefix.family,
                prefix.spans,
                prefix.interface,
                numbers.mark(mark_id),
                numbers.table(number),
            )
            for prefix in (row.prefix for row in table)
            for mark_id, number in _marks(prefix)
        ]


def _marks(prefix: TypedPrefix) -> list[tuple[int, int]]:
    """The numbers of a prefix's marks, each with that of the table to which it leads."""
    if not prefix.by_class:
        return [(prefix.mark_id, prefix.id)]
    return [(seat.number, seat.number) for seat in prefix.seats]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What stands in the way, and what to do about it."""

    what: str
    remedy: str


def obstacles(host: HostState, prefixes: Sequence[Typed], numbers: Numbers) -> Iterator[Obstacle]:
    """What stands before our rules and takes typed packets, each with its remedy."""
    before = [r for r in host.foreign_rules if r.priority <= numbers.rule_priority + _OURS - 2]
    in_the_way = [
        (rule, names)
        for rule in before
        if _takes(rule, host, numbers) and (names := _caught(rule, prefixes))
    ]
    rules = [rule for rule, _ in in_the_way]
    for rule, names in in_the_way:
        yield Obstacle(
            f"IPv{rule.family} rule {rule.priority} ({rule.selector}) stands before ours and takes"
            f" the packets of {', '.join(names)}",
            _remedy(rule, rules, before, numbers),
        )


def _takes(rule: ForeignRule, host: HostState, numbers: Numbers) -> bool:
    """Whether the packets that fit never get to our rules (all, or all to its destination)."""
    match rule.action:
        case "lookup":
            return not rule.virtual and takes_everything(
                _routes(rule, host), lambda route: _passes_over(rule, route, host)
            )
        case "goto":
            return rule.goto > numbers.rule_priority
        case "nop":
            return False
        case _:
            return True


def _routes(rule: ForeignRule, host: HostState) -> Iterable[Route]:
    known = host.main_routes if rule.table == _MAIN_TABLE else host.foreign_routes
    return [r for r in known if (r.table, r.family) == (rule.table, rule.family)]


def _passes_over(rule: ForeignRule, route: Route, host: HostState) -> bool:
    """Whether later rules are asked, though the rule's table has this route.

    What refuses is never passed over (fib4_rule_suppress and fib6_rule_suppress of the kernel).
    """
    if not route.kind.sends:
        return route.kind is RouteKind.THROW
    length = route.destination.prefixlen if route.destination is not None else 0
    if rule.suppress_prefix_length is not None and length <= rule.suppress_prefix_length:
        return True
    return rule.suppress_group is not None and all(
        name in host.links and host.links[name].group == rule.suppress_group
        for name in _judged_by(route)
    )


def _judged_by(route: Route) -> list[str | None]:
    """The interfaces whose group counts: of several next hops IPv4 looks at the first, IPv6 at the
    one that it takes, so that a single one of another group lets packets leave."""
    if not route.hops:
        return [route.interface]
    hops = [hop.interface for hop in route.hops]
    return list(hops[:1] if route.family is Family.IPV4 else hops)


def _caught(rule: ForeignRule, prefixes: Iterable[Typed]) -> list[str]:
    return [each.name for each in prefixes if each.family is rule.family and _fits(rule, each)]


def _fits(rule: ForeignRule, prefix: Typed) -> bool:
    """Whether some packet of the prefix fits; it has our mark or none, and may be bound."""
    if rule.table == prefix.table:
        return False
    if rule.inverted:
        return True  # a packet of ours is hardly all that it asks for
    return (
        rule.incoming in (None, _OWN)
        and rule.outgoing in (None, prefix.interface)
        and (rule.destination is None or takes_half(rule.destination))
        and any((rule.mark ^ mark) & rule.mask == 0 for mark in (0, prefix.mark))
        and (rule.source is None or any(rule.source.overlaps(span) for span in prefix.spans))
    )


def _remedy(
    rule: ForeignRule, rules: Sequence[ForeignRule], before: Sequence[ForeignRule], numbers: Numbers
) -> str:
    """A priority of its own for a rule that has none; for one that has, a better one for ours."""
    lowest = min(each.priority for each in rules)
    if _had_no_priority(rule, before, numbers) or lowest <= _OURS:
        # Behind ours, and in the same order among themselves.
        behind = numbers.rule_priority + _OURS + rules.index(rule)
        ip = f"ip -{rule.family} rule"
        why = (
            "it was added without a priority (wg-quick does so), which is before all others"
            if _had_no_priority(rule, before, numbers)
            else "no priority is left before it"
        )
        return (
            f"{why}: `{ip} add priority {behind} {rule.selector} && {ip} del priority"
            f" {rule.priority}`, and have whoever adds it name that priority"
        )
    return (
        f"set agent.rule_priority = {lowest - _OURS} (now {numbers.rule_priority}), or give the"
        f" rule a priority above {numbers.rule_priority + _OURS - 1}"
    )


def _had_no_priority(rule: ForeignRule, before: Sequence[ForeignRule], numbers: Numbers) -> bool:
    """The kernel puts such a rule one before the first: they stand in a row before ours."""
    taken = {each.priority for each in before if each.family is rule.family}
    return all(each in taken for each in range(rule.priority, numbers.rule_priority))
