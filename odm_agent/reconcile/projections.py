"""The two ends of the way: what should be in kernel and maps, and what is there now."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from odm_agent.core.host import Address, HostState, Route, Rule
from odm_agent.core.model import ClassPolicy, Mode, Placement, SocketKind
from odm_agent.core.projection import CgroupRow, PrefixRow, Projection
from odm_agent.prefixes import routing, selection, typings, untyped
from odm_agent.prefixes.mirror import Mirror
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
    shield = untyped.shield(table, host)
    theirs = {(a.address, a.interface) for a in host.addresses if not a.ours}
    addresses = frozenset(
        address
        for row in table
        if (holder := host.links.get(row.holder)) and not holder.lacks(row.prefix.family)
        for address in _addresses_of(row, shield)
        # Somebody else's address at the right place is used as it is, never taken over.
        if (address.address, address.interface) not in theirs
    )
    routes: set[Route] = set()
    rules: set[Rule] = set()
    usable: dict[int, PrefixRow] = {}
    mirror = Mirror.of(table, host)
    for row in table:
        sources = selection.sources_of(row, host)
        routes.update(routing.routes_of(row, sources, mirror, numbers))
        rules.update(routing.rules_of(row, numbers))
        usable |= selection.prefix_rows(row, host, numbers, table.secret)
    rules.update(routing.exemptions(table, host, numbers))
    for each in routing.elsewhere(table, host, numbers):
        if isinstance(each, Rule):
            rules.add(each)
        else:
            routes.add(each)
    return replace(
        classified(classes, cgroups, host),
        addresses=addresses,
        routes=frozenset(routes),
        rules=frozenset(rules),
        leases=typings.leases(table),
        spans=typings.spans(table),
        sources=typings.sources(table, addresses, host),
        prefixes=usable,
        seats=selection.seats(table, usable),
        choices=selection.choices(table, usable, host),
        uplinks=dict.fromkeys(
            sorted(host.links[name].index for name in mirror.uplinks if name in host.links)
        ),
        labels=shield.labelled,
    )


def classified(
    classes: Mapping[int, ClassPolicy], cgroups: Mapping[int, CgroupRow], host: HostState
) -> Projection:
    """The part of what should be there that no address, route or prefix decides about."""
    rows = {class_id: class_row(policy) for class_id, policy in classes.items()}
    return Projection(classes=rows, cgroups=dict(cgroups), guards=_guards(classes, host))


def class_row(policy: ClassPolicy) -> ClassPolicy:
    """The part of a policy that the maps hold (they know no names)."""
    return replace(policy, name="", cgroups=(), delegated=False, follows_by_mptcp=False)


def _guards(classes: Mapping[int, ClassPolicy], host: HostState) -> frozenset[int]:
    """All interfaces, if any class may not send by packet sockets; else none: it costs a little.

    `lo` too: a host that forwards would pass on what is put in there.
    """
    if not any(SocketKind.PACKET in p.refuse for p in classes.values() if p.mode is not Mode.OFF):
        return frozenset()
    return frozenset(link.index for link in host.links.values())


def _addresses_of(row: Row, shield: untyped.Shield) -> Iterator[Address]:
    """As host addresses; an on-link one is announced, so it is checked first, and not preferred.

    IPv4 knows no deprecation (and its conflict check is the caller's).
    """
    if row.prefix.managed:  # whoever manages them
        return
    on_link = row.prefix.placement is Placement.ON_LINK
    for address in row.configured:
        deprecated = (on_link or shield.deprecated) and address.version == 6
        yield Address(address, address.max_prefixlen, row.holder, deprecated, on_link)


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
        labels=host.labels,
    )
