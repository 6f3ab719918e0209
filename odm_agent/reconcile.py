"""What the typed prefix table means for kernel and maps, and the ordered way there.

Level-triggered: `desired` looks at the host as it is now, and rows appear only for what is there.
So one plan may not reach the goal (an address first has to become ready): read, plan and apply
until the plan is empty. A plan may be cut short after any action without harm:

- no choice or prefix row names an address that the kernel did not hold, ready, when it was read;
- no address of ours exists without the verdict on it and on its network, nor (unless its prefix is
  handed on) without the rule that refuses what others send from there.

After an action that failed, go on with what `still_safe` leaves of the plan.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from odm_agent.actions import (
    Action,
    AddAddress,
    AddRoute,
    AddRule,
    DropCgroup,
    DropClass,
    DropPrefix,
    DropSource,
    DropSpan,
    Guard,
    PutCgroup,
    PutChoice,
    PutClass,
    PutPrefix,
    PutSource,
    PutSpan,
    RemoveAddress,
    RemoveRoute,
    RemoveRule,
    Unguard,
)
from odm_agent.model import (
    Address,
    CgroupRow,
    ClassPolicy,
    HostState,
    IPAddress,
    IPNetwork,
    Mode,
    Placement,
    PrefixRow,
    Projection,
    Route,
    RouteKind,
    Rule,
    RuleAction,
    SocketKind,
)
from odm_agent.prefixes import routing, selection, verdicts
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.table import PrefixTable, Row


def desired(
    table: PrefixTable,
    classes: Mapping[int, ClassPolicy],
    cgroups: Mapping[int, CgroupRow],
    host: HostState,
    numbers: Numbers,
) -> Projection:
    """What should be in kernel and maps, given what the host looks like now."""
    theirs = {(a.address, a.interface) for a in host.addresses if not a.ours}
    addresses = frozenset(
        address
        for row in table
        if row.holder in host.links
        for address in _addresses_of(row)
        # Somebody else's address at the right place is used as it is, never taken over.
        if (address.address, address.interface) not in theirs
    )
    routes: set[Route] = set()
    rules: set[Rule] = set()
    usable: dict[int, PrefixRow] = {}
    for row in table:
        ready = selection.ready_addresses(row, host)
        routes.update(routing.routes_of(row, ready[0] if ready else None, host, numbers))
        rules.update(routing.rules_of(row, numbers))
        if seen := selection.prefix_row(row, host, numbers):
            usable[row.prefix.id] = seen
    return Projection(
        addresses=addresses,
        routes=frozenset(routes),
        rules=frozenset(rules),
        spans=verdicts.spans(table),
        sources=verdicts.sources(table, addresses, host),
        prefixes=usable,
        choices=selection.choices(table, usable, host),
        classes=dict(classes),
        cgroups=dict(cgroups),
        guards=_guards(classes, host),
    )


def _guards(classes: Mapping[int, ClassPolicy], host: HostState) -> frozenset[int]:
    """All interfaces, if any class may not send by packet sockets; else none: it costs a little."""
    if not any(SocketKind.PACKET in p.refuse for p in classes.values() if p.mode is not Mode.OFF):
        return frozenset()
    return frozenset(link.index for name, link in host.links.items() if name != "lo")


def observe(host: HostState, maps: Projection) -> Projection:
    """What is there now: what is ours in the kernel, and the rows of the maps."""
    return replace(
        maps,
        addresses=frozenset(
            Address(a.address, a.prefix_length, a.interface, a.deprecated, a.interface != "lo")
            for a in host.addresses
            if a.ours
        ),
        routes=host.routes,
        rules=host.rules,
    )


def plan(desired: Projection, observed: Projection, host: HostState) -> list[Action]:
    """The actions from `observed` to `desired`, in an order that is safe at every point.

    Empty if there is nothing to do now. Withdrawals come first; what is denied is recorded before
    what it is about exists, and forgotten in a later plan, when `host` shows that it is gone; new
    routes and rules stand before old ones go.
    """
    kept = _kept_rows(desired, observed)
    return [
        *_withdraw(desired, observed, kept),
        *_classify(desired, observed),
        *_record(desired, observed),
        *_build(desired, observed),
        *_tear_down(desired, observed),
        *_offer(desired, observed, kept),
        *_forget(desired, observed, host),
    ]


def still_safe(failed: Action, rest: Sequence[Action]) -> list[Action]:
    """What of the plan may still be done when `failed` could not be.

    A route or rule that failed stops only its own table, a verdict (for which a map has no room, or
    a rule that refuses) only what it is about, a guard nothing; all that depends on an address
    waits for a later plan anyway. After a failure to withdraw or to offer nothing is done.
    """
    match failed:
        case AddAddress() | RemoveAddress() | Guard() | Unguard():
            return list(rest)
        case AddRule(Rule(action=RuleAction.PROHIBIT, source=network)):
            # Nor may others go in whose place it was to stand.
            stay = [a for a in rest if not (isinstance(a, RemoveRule) and _refuses(a.rule))]
            return _without(stay, lambda address: _holds(network, [address]))
        case PutSpan(network):
            return _without(rest, lambda address: _holds(network, [address]))
        case PutSource(lacking):
            return _without(rest, lambda address: address == lacking)
        case RemoveRule(Rule(action=RuleAction.PROHIBIT)) | PutCgroup() | DropSource() | DropSpan():
            return list(rest)
        case AddRoute() | RemoveRoute() | AddRule() | RemoveRule():
            return [a for a in rest if _table_of(a) != _table_of(failed)]
        case _:
            return []


def class_row(policy: ClassPolicy) -> ClassPolicy:
    """The part of a policy that the maps hold (they know no names)."""
    return replace(policy, name="", cgroups=(), delegated=False)


def _addresses_of(row: Row) -> Iterator[Address]:
    """As host addresses; an on-link one is announced, so it is checked first, and not preferred.

    IPv4 knows no deprecation (and its conflict check is the caller's).
    """
    on_link = row.prefix.placement is Placement.ON_LINK
    for address in row.configured:
        deprecated = on_link and address.version == 6
        yield Address(address, address.max_prefixlen, row.holder, deprecated, on_link)


def _kept_rows(desired: Projection, observed: Projection) -> set[int]:
    """Prefix rows that may stay while the rest is done: still true, or made so by one write."""
    return {
        prefix_id
        for prefix_id, old in observed.prefixes.items()
        if (new := desired.prefixes.get(prefix_id)) is not None
        # A mark selects pool[0] by a route that has yet to change if that address has.
        and replace(old, pool=old.pool[:1], configured=0)
        == replace(new, pool=new.pool[:1], configured=0)
    }


def _withdraw(desired: Projection, observed: Projection, kept: set[int]) -> Iterator[Action]:
    """Hand out nothing that is not (or not any more) as the maps say it is."""
    for key, chosen in observed.choices.items():
        if (narrowed := _narrowed(chosen, kept)) != chosen:
            yield PutChoice(*key, narrowed)
    for prefix_id, row in observed.prefixes.items():
        if prefix_id not in kept:
            yield DropPrefix(prefix_id)
        elif desired.prefixes[prefix_id] != row:
            yield PutPrefix(prefix_id, desired.prefixes[prefix_id])


def _classify(desired: Projection, observed: Projection) -> Iterator[Action]:
    """Who may do what: a cgroup never names a class that is not there."""
    for cgroup_id in observed.cgroups.keys() - desired.cgroups.keys():
        yield DropCgroup(cgroup_id)
    rows = {class_id: class_row(policy) for class_id, policy in observed.classes.items()}
    for class_id, policy in desired.classes.items():
        if rows.get(class_id) != class_row(policy):
            yield PutClass(policy)
    for cgroup_id, row in desired.cgroups.items():
        if observed.cgroups.get(cgroup_id) != row:
            yield PutCgroup(cgroup_id, row)
    for class_id in observed.classes.keys() - desired.classes.keys():
        yield DropClass(class_id)
    for interface in sorted(observed.guards - desired.guards):
        yield Unguard(interface)
    for interface in sorted(desired.guards - observed.guards):
        yield Guard(interface)


def _record(desired: Projection, observed: Projection) -> Iterator[Action]:
    """Verdicts, before there is anything that they are about."""
    for network, span in desired.spans.items():
        if observed.spans.get(network) != span:
            yield PutSpan(network, span)
    for address, source in desired.sources.items():
        if observed.sources.get(address) != source:
            yield PutSource(address, source)
    for rule in sorted(desired.rules - observed.rules, key=_rule_order):
        if _refuses(rule):
            yield AddRule(rule)


def _build(desired: Projection, observed: Projection) -> Iterator[Action]:
    """Addresses, then routes (the last resort first, what needs a next hop last), then rules."""
    lengths = {(a.address, a.interface): a for a in observed.addresses}
    for address in sorted(desired.addresses - observed.addresses, key=_by_address):
        old = lengths.get((address.address, address.interface))
        if old and old.prefix_length != address.prefix_length:
            yield RemoveAddress(old)  # another length is another address to IPv4
        yield AddAddress(address)
    for route in sorted(desired.routes - observed.routes, key=_route_order):
        yield AddRoute(route)
    for rule in sorted(desired.rules - observed.rules, key=_rule_order):
        if not _refuses(rule):
            yield AddRule(rule)


def _tear_down(desired: Projection, observed: Projection) -> Iterator[Action]:
    """Rules, routes, addresses: the reverse of building."""
    for rule in sorted(observed.rules - desired.rules, key=_rule_order):
        if not _refuses(rule):
            yield RemoveRule(rule)
    # Some are gone already: adding a route by a gateway replaces that of its destination.
    for route in sorted(observed.routes - desired.routes, key=_route_order, reverse=True):
        yield RemoveRoute(route)
    staying = {(a.address, a.interface) for a in desired.addresses}
    for address in sorted(observed.addresses - desired.addresses, key=_by_address):
        if (address.address, address.interface) not in staying:
            yield RemoveAddress(address)


def _offer(desired: Projection, observed: Projection, kept: set[int]) -> Iterator[Action]:
    """Prefix rows, then the choices that name them."""
    for prefix_id, row in desired.prefixes.items():
        if prefix_id not in kept:
            yield PutPrefix(prefix_id, row)
    for key in desired.choices.keys() | observed.choices.keys():
        chosen = desired.choices.get(key, ())
        if _narrowed(observed.choices.get(key, ()), kept) != chosen:
            yield PutChoice(*key, chosen)


def _forget(desired: Projection, observed: Projection, host: HostState) -> Iterator[Action]:
    """Verdicts on what is gone, and on networks in which nothing of ours is left."""
    present = {a.address for a in host.addresses}
    for address in observed.sources.keys() - desired.sources.keys():
        if address not in present:
            yield DropSource(address)
    leaving = {a.address for a in host.addresses if a.ours} - desired.sources.keys()
    any_ip = {r.destination for r in host.routes if r.kind is RouteKind.LOCAL}
    for network in observed.spans.keys() - desired.spans.keys():
        if not _holds(network, leaving) and network not in any_ip:
            yield DropSpan(network)
    unwanted = {a.address for a in host.addresses if a.ours} - {
        a.address for a in desired.addresses
    }
    for rule in sorted(observed.rules - desired.rules, key=_rule_order):
        if _refuses(rule) and not _holds(rule.source, unwanted):
            yield RemoveRule(rule)


def _refuses(rule: Rule) -> bool:
    """Rules that refuse are verdicts too: they stand before what they are about, and outlive it."""
    return rule.action is RuleAction.PROHIBIT


def _without(rest: Sequence[Action], lacks: Callable[[IPAddress], bool]) -> list[Action]:
    """The rest without all that would bring an address into use whose verdict is not recorded."""
    stopped = {
        a.prefix_id for a in rest if isinstance(a, PutPrefix) and any(map(lacks, a.row.pool))
    }

    def may(action: Action) -> bool:
        match action:
            case AddAddress(address):
                return not lacks(address.address)
            case PutPrefix(prefix_id):
                return prefix_id not in stopped
            case PutChoice(_, _, prefix_ids):
                return stopped.isdisjoint(prefix_ids)
            case _:
                return True

    return [action for action in rest if may(action)]


def _holds(network: IPNetwork | None, addresses: Iterable[IPAddress]) -> bool:
    return network is not None and any(
        a.version == network.version and a in network for a in addresses
    )


def _narrowed(chosen: tuple[int, ...], kept: set[int]) -> tuple[int, ...]:
    return tuple(prefix_id for prefix_id in chosen if prefix_id in kept)


def _table_of(action: Action) -> int | None:
    match action:
        case AddRoute(route) | RemoveRoute(route):
            return route.table
        case AddRule(rule) | RemoveRule(rule):
            return rule.table
        case _:
            return None


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
