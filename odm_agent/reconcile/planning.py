"""The ordered way from what is there to what should be there."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from odm_agent.core import tables
from odm_agent.core.actions import (
    Action,
    AddAddress,
    AddLabel,
    AddRoute,
    AddRule,
    Guard,
    RemoveAddress,
    RemoveLabel,
    RemoveRoute,
    RemoveRule,
    Unguard,
)
from odm_agent.core.host import Address, HostState, Route, RouteKind, Rule, RuleAction
from odm_agent.core.model import AddressType, Family, IPAddress, IPNetwork
from odm_agent.core.projection import PrefixRow, Projection
from odm_agent.core.tables import Table

_Key = TypeVar("_Key")
_Row = TypeVar("_Row")


def plan(desired: Projection, observed: Projection, host: HostState) -> list[Action]:
    """The actions from `observed` to `desired`, in an order that is safe at every point.

    Empty if there is nothing to do now. Withdrawals come first; what is denied is recorded before
    what it is about exists, and forgotten in a later plan, when `host` shows that it is gone; new
    routes and rules stand before old ones go.
    """
    kept = _kept_rows(desired, observed, host)
    return [
        *_withdraw(desired, observed, kept),
        *classify(desired, observed),
        *_record(desired, observed),
        *_build(desired, observed),
        *_tear_down(desired, observed),
        *_offer(desired, observed, kept),
        *_unconfigure(desired, observed),
        *_forget(desired, observed, host),
    ]


def _kept_rows(desired: Projection, observed: Projection, host: HostState) -> set[int]:
    """Prefix rows that may stay while the rest is done: still true, or made so by one write."""
    local = [r.destination for r in desired.routes & observed.routes if r.kind is RouteKind.LOCAL]
    return {
        prefix_id
        for prefix_id, old in observed.prefixes.items()
        if (new := desired.prefixes.get(prefix_id)) is not None
        and _is_alike(old, new)
        and (
            _same_first(old, new)
            or (
                _stays_typed(prefix_id, old, desired)
                and _is_held(old, host, local)
                and old.fresh == new.fresh
            )
        )
    }


def _is_alike(old: PrefixRow, new: PrefixRow) -> bool:
    """Whether they differ in their pools at most, or in how packets leave while none does."""
    if old.waits or new.waits:
        old, new = (replace(each, ifindex=0, on_net=False, waits=False) for each in (old, new))
    return _without_pool(old) == _without_pool(new)


def _without_pool(row: PrefixRow) -> PrefixRow:
    return replace(row, pool=(), configured=0, spares=0, configured_spares=0, leases=(), fresh=b"")


def _same_first(old: PrefixRow, new: PrefixRow) -> bool:
    """Whether the mark selects what it did: `pool[0]`, by a route that changes before the row."""
    return old.pool[:1] == new.pool[:1]


def _is_late(old: PrefixRow, new: PrefixRow) -> bool:
    """Whether a row that stays is written after the routes: what waits does so until these lead."""
    return not _same_first(old, new) or (old.waits and not new.waits)


def _stays_typed(prefix_id: int, old: PrefixRow, desired: Projection) -> bool:
    """Whether all that a row hands out stays with the prefix."""
    sources = (desired.sources.get(address) for address in old.pool)
    return all(source is not None and source.prefix_id == prefix_id for source in sources)


def _is_held(old: PrefixRow, host: HostState, local: Sequence[IPNetwork | None]) -> bool:
    """Whether the host holds all that a row hands out. `local`: the networks that stay local as a
    whole.
    """
    configured, by_route = _slots(old)
    return host.ready.issuperset(configured) and all(
        any(net is not None and net.version == each.version and each in net for net in local)
        for each in by_route
    )


def _slots(row: PrefixRow) -> tuple[tuple[IPAddress, ...], tuple[IPAddress, ...]]:
    """The addresses of a pool that exist on an interface, and those that are local by a route."""
    spares = len(row.pool) - row.spares
    others = spares + row.configured_spares
    return (
        row.pool[: row.configured] + row.pool[spares:others],
        row.pool[row.configured : spares] + row.pool[others:],
    )


def _withdraw(desired: Projection, observed: Projection, kept: set[int]) -> Iterator[Action]:
    """Hand out nothing that is not (or not any more) as the maps say it is."""
    for key, chosen in observed.choices.items():
        if (narrowed := _narrowed(chosen, kept)) != chosen:
            yield _choose(key, narrowed)
    for seat, number in observed.seats.items():
        if number not in kept or desired.seats.get(seat) != number:
            yield tables.SEATS.drop(seat)
    for prefix_id, row in observed.prefixes.items():
        if prefix_id not in kept:
            yield tables.PREFIXES.drop(prefix_id)
        elif desired.prefixes[prefix_id] != row and not _is_late(row, desired.prefixes[prefix_id]):
            yield tables.PREFIXES.put(prefix_id, desired.prefixes[prefix_id])


def classify(desired: Projection, observed: Projection) -> Iterator[Action]:
    """Who may do what: a cgroup never names a class that is not there."""
    yield from _drops(tables.CGROUPS, desired, observed)
    yield from _puts(tables.CLASSES, desired, observed)
    yield from _puts(tables.CGROUPS, desired, observed)
    yield from _drops(tables.CLASSES, desired, observed)
    for interface in sorted(observed.guards - desired.guards):
        yield Unguard(interface)
    for interface in sorted(desired.guards - observed.guards):
        yield Guard(interface)


def _record(desired: Projection, observed: Projection) -> Iterator[Action]:
    """What ends of addresses, and typings, before there is anything that they are about."""
    yield from _puts(tables.LEASES, desired, observed)
    yield from _puts(tables.SPANS, desired, observed)
    yield from _puts(tables.SOURCES, desired, observed)
    yield from _puts(tables.UPLINKS, desired, observed)
    for rule in sorted(desired.rules - observed.rules, key=_rule_order):
        if refuses(rule):
            yield AddRule(rule)


def _build(desired: Projection, observed: Projection) -> Iterator[Action]:
    """Labels, addresses, routes (the last resort first, what needs a next hop last), rules."""
    for labelled in sorted(desired.labels - observed.labels):
        yield AddLabel(labelled)
    lengths = {(a.address, a.interface): a for a in observed.addresses}
    for address in sorted(desired.addresses - observed.addresses, key=_by_address):
        old = lengths.get((address.address, address.interface))
        if old and old.prefix_length != address.prefix_length:
            yield RemoveAddress(old)  # another length is another address to IPv4
        yield AddAddress(address)
    for route in sorted(desired.routes - observed.routes, key=_route_order):
        yield AddRoute(route)
    for rule in sorted(desired.rules - observed.rules, key=_rule_order):
        if not refuses(rule):
            yield AddRule(rule)


def _tear_down(desired: Projection, observed: Projection) -> Iterator[Action]:
    """Rules and routes: the reverse of building."""
    for rule in sorted(observed.rules - desired.rules, key=_rule_order):
        if not refuses(rule):
            yield RemoveRule(rule)
    # Some are gone already: adding a route replaces that of its destination and metric.
    for route in sorted(observed.routes - desired.routes, key=_route_order, reverse=True):
        yield RemoveRoute(route)


def _unconfigure(desired: Projection, observed: Projection) -> Iterator[Action]:
    """Addresses and labels, when no row hands them out any more: they may be local by a route."""
    staying = {(a.address, a.interface) for a in desired.addresses}
    for address in sorted(observed.addresses - desired.addresses, key=_by_address):
        if (address.address, address.interface) not in staying:
            yield RemoveAddress(address)
    for labelled in sorted(observed.labels - desired.labels):
        yield RemoveLabel(labelled)


def _offer(desired: Projection, observed: Projection, kept: set[int]) -> Iterator[Action]:
    """Prefix rows, then the seats and choices that name them."""
    for prefix_id, row in desired.prefixes.items():
        if prefix_id not in kept or _is_late(observed.prefixes[prefix_id], row):
            yield tables.PREFIXES.put(prefix_id, row)
    for seat, number in desired.seats.items():
        if number not in kept or observed.seats.get(seat) != number:
            yield tables.SEATS.put(seat, number)
    for key in desired.choices.keys() | observed.choices.keys():
        chosen = desired.choices.get(key, ())
        if _narrowed(observed.choices.get(key, ()), kept) != chosen:
            yield _choose(key, chosen)


def _forget(desired: Projection, observed: Projection, host: HostState) -> Iterator[Action]:
    """Typings of what is gone, and of networks in which nothing of ours is left."""
    present = {a.address for a in host.addresses}
    named = set()  # a source that stays may not be left without its end
    for drop in _drops(tables.SOURCES, desired, observed):
        if drop.key not in present:
            yield drop
        else:
            named.add(observed.sources[drop.key].lease)
    ours = {a.address for a in host.addresses if a.ours}
    leaving = _Lying(ours - desired.sources.keys())
    any_ip = {r.destination for r in host.routes if r.kind is RouteKind.LOCAL}
    for drop in _drops(tables.SPANS, desired, observed):
        if not leaving.inside(drop.key) and drop.key not in any_ip:
            yield drop
        else:
            named.add(observed.spans[drop.key].lease)
    for drop in _drops(tables.LEASES, desired, observed):
        if drop.key not in named:
            yield drop
    yield from _drops(tables.UPLINKS, desired, observed)
    unwanted = _Lying(ours - {a.address for a in desired.addresses})
    for rule in sorted(observed.rules - desired.rules, key=_rule_order):
        if refuses(rule) and not (rule.source and unwanted.inside(rule.source)):
            yield RemoveRule(rule)


def _puts(
    table: Table[_Key, _Row], desired: Projection, observed: Projection
) -> Iterator[tables.Put]:
    """The rows that are missing, or others than they should be."""
    have = table.of(observed)
    for key, row in table.of(desired).items():
        if key not in have or have[key] != row:
            yield table.put(key, row)


def _drops(
    table: Table[_Key, _Row], desired: Projection, observed: Projection
) -> Iterator[tables.Drop]:
    """The rows that should not be there."""
    want = table.of(desired)
    return (table.drop(key) for key in table.of(observed) if key not in want)


def _choose(key: tuple[AddressType, Family], prefix_ids: tuple[int, ...]) -> Action:
    return tables.CHOICES.put(key, prefix_ids) if prefix_ids else tables.CHOICES.drop(key)


def refuses(rule: Rule) -> bool:
    """Rules that refuse are like typings: they stand before what they are about, and outlive it."""
    return rule.action is RuleAction.PROHIBIT


class _Lying:
    """Addresses, ordered so that asking for those inside a network does not look at each."""

    def __init__(self, addresses: Iterable[IPAddress]) -> None:
        self._ordered = sorted((a.version, int(a)) for a in addresses)

    def inside(self, network: IPNetwork) -> bool:
        """Whether any lies in the network."""
        first = bisect_left(self._ordered, (network.version, int(network.network_address)))
        last = bisect_right(self._ordered, (network.version, int(network.broadcast_address)))
        return first < last


def _narrowed(chosen: tuple[int, ...], kept: set[int]) -> tuple[int, ...]:
    return tuple(prefix_id for prefix_id in chosen if prefix_id in kept)


def _by_address(address: Address) -> tuple[int, int, str]:
    return address.address.version, int(address.address), address.interface


def _route_order(route: Route) -> tuple[bool, bool, bool, int, int, str, int]:
    destination = route.destination
    return (
        route.kind is not RouteKind.UNREACHABLE,
        route.gateway is not None,
        destination is None,
        route.table,
        int(route.family),
        str(destination),
        route.metric,
    )


def _rule_order(rule: Rule) -> tuple[int, int, int, str, bool]:
    return int(rule.family), rule.priority, rule.table, str(rule.source), rule.local_only
