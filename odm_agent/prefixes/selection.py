"""What hooks may hand out: prefixes whose addresses, routes and rules are all really there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from odm_agent.core.host import HostState
from odm_agent.core.model import AddressType, Family, IPAddress, Seat
from odm_agent.core.projection import PrefixRow
from odm_agent.core.wandering import groups
from odm_agent.prefixes import wandering
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.rfc7217 import socket_key
from odm_agent.prefixes.routing import any_ip_routes, is_set_up, last_resort, rules_of
from odm_agent.prefixes.table import PrefixTable, Row


def ready_addresses(row: Row, host: HostState) -> tuple[IPAddress, ...]:
    """The configured addresses of a prefix that the kernel holds, ready, where they belong.

    Those that sockets are given now come first, then spares; those that linger are left out.
    """
    return tuple(
        address
        for address in row.configured
        if row.serves(address) and any(each.usable for each in host.at(address, row.holder))
    )


def absence(row: Row, host: HostState) -> str | None:
    """Why nothing can leave by the prefix's uplink, in words for people; None: it is in order."""
    interface, family = row.prefix.interface, row.prefix.family
    link = host.links.get(interface)
    if link is None:
        return f"there is no interface {interface}"
    if fault := link.fault or link.lacks(family):
        return f"{interface} {fault}"
    prefix = row.prefix
    if prefix.is_unserved:
        return "the network to which the host is attached now does not serve it"
    if not prefix.attached:
        return "no network has confirmed it since its link was lost"
    if prefix.managed and not row.addresses:
        here = {local.address for local in host.addresses if local.interface == interface}
        twice = any(a.address in here for a in host.addresses if a.interface != interface)
        other = " that no other uplink has" if twice else ""
        return f"{interface} has no IPv{family} address{other}"
    if row.addresses and row.forgotten.issuperset(row.addresses):
        return f"the router of {interface} announces the prefix of its addresses no more"
    follows = prefix.learned_gateway and prefix.gateway is None and not link.peered
    if follows and host.way_of(prefix) is None:
        return f"no IPv{family} default route leads by {interface}"
    if why := host.dead.get((family, interface), ""):
        return f"{interface} {why}"
    holder = host.links.get(row.holder)
    return f"{row.holder} {fault}" if holder and (fault := holder.lacks(family)) else None


def is_local_as_a_whole(row: Row, host: HostState) -> bool:
    """Whether the host takes all addresses of an any-IP prefix for its own."""
    return row.any_ip and host.routes.issuperset(any_ip_routes(row))


def sources_of(row: Row, host: HostState) -> dict[int, IPAddress]:
    """The first ready address of the prefix, and of each of its seats, by their numbers."""
    found: dict[int, IPAddress] = {}
    for address in ready_addresses(row, host):
        found.setdefault(row.prefix.id, address)
        if (seat := row.seat_of(address)) is not None:
            found.setdefault(seat.number, address)
    return found


def prefix_rows(row: Row, host: HostState, numbers: Numbers, secret: bytes) -> dict[int, PrefixRow]:
    """The prefix as hooks see it, by its id; and where each class has addresses of its own, those
    of the seats that can be used, by their numbers.
    """
    if not row.prefix.by_class:
        one = prefix_row(row, host, numbers, secret)
        return {} if one is None else {row.prefix.id: one}
    link = host.links.get(row.prefix.interface)
    if link is None or not _is_led(row, row.prefix.id, host, numbers):
        return {}
    of_seat: dict[int, list[IPAddress]] = {}
    for address in ready_addresses(row, host):
        if (seat := row.seat_of(address)) is not None:
            of_seat.setdefault(seat.number, []).append(address)
    bare = PrefixRow(
        *(row.prefix.type, row.prefix.family, link.index),
        mark=0,
        pool=(),
        configured=0,
        on_net=row.prefix.on_net,
        by_class=True,
        waits=row.prefix.waits,
    )
    rows = {
        seat.number: _seat_row(row, seat, of_seat[seat.number], bare, numbers)
        for seat in row.prefix.seats
        if seat.number in of_seat and _is_led(row, seat.number, host, numbers)
    }
    return {row.prefix.id: bare, **rows} if rows else {}


def _seat_row(
    row: Row, seat: Seat, ready: Sequence[IPAddress], bare: PrefixRow, numbers: Numbers
) -> PrefixRow:
    current, spares = _parted(row, ready)
    pool = (*current, *spares)
    return replace(
        bare,
        mark=numbers.mark(seat.number),
        pool=pool,
        configured=len(current),
        spares=len(spares),
        configured_spares=len(spares),
        leases=tuple(map(row.lease_id, pool)),
        by_class=False,
        class_id=seat.class_id,
    )


def seats(table: PrefixTable, usable: Mapping[int, PrefixRow]) -> dict[tuple[int, int], int]:
    """By prefix and class the number of each seat that can be used."""
    return {
        (row.prefix.id, seat.class_id): seat.number
        for row in table
        for seat in row.prefix.seats
        if seat.number in usable
    }


def _is_led(row: Row, number: int, host: HostState, numbers: Numbers) -> bool:
    """Whether nothing can leave by another gateway: the rules and the last resort are there."""
    if last_resort(row.prefix.family, number, numbers) not in host.routes:
        return False
    return host.rules.issuperset(rules_of(row, numbers))


def prefix_row(row: Row, host: HostState, numbers: Numbers, secret: bytes) -> PrefixRow | None:
    """The prefix as hooks see it, or None while it must not be used.

    Needed: the link (up or not), a ready address, and the rules and the last resort, so that
    nothing can leave by another gateway. Other routes may lack: then packets go nowhere, safely.
    """
    link = host.links.get(row.prefix.interface)
    ready = ready_addresses(row, host)
    if link is None or not ready:
        return None
    if not _is_led(row, row.prefix.id, host, numbers):
        return None
    if row.prefix.managed:  # one is the best: a mark leads to one source alone
        ready = ready[:1]
    current, spares = _parted(row, ready)
    others: tuple[IPAddress, ...] = ()
    own = bool(current) and is_local_as_a_whole(row, host)
    if own:
        others = tuple(filter(row.serves, row.unconfigured))
    other_current, other_spares = _parted(row, others)
    pool = (*current, *other_current, *spares, *other_spares)
    return PrefixRow(
        type=row.prefix.type,
        family=row.prefix.family,
        ifindex=link.index,
        mark=numbers.mark(row.prefix.mark_id),
        pool=pool,
        configured=len(current),
        spares=len(spares) + len(other_spares),
        configured_spares=len(spares),
        leases=tuple(map(row.lease_id, pool)) if row.prefix.addresses else (),
        fresh=socket_key(row.prefix.network, secret) if own and _has_key(row) else b"",
        shared=row.prefix.shared,
        on_net=row.prefix.on_net,
        on_request=own and row.makes_own and not row.prefix.per_socket,
        new_until_s=int(row.prefix.new_until_s),
        waits=row.prefix.waits,
    )


def _has_key(row: Row) -> bool:
    """Whether sockets have addresses of their own, or (IPv4) one after the other of the pool."""
    return row.prefix.per_socket or row.makes_own


def _parted(
    row: Row, addresses: Sequence[IPAddress]
) -> tuple[tuple[IPAddress, ...], tuple[IPAddress, ...]]:
    """Those that sockets are given now, and the spares."""
    current = tuple(each for each in addresses if not row.is_spare(each))
    return current, tuple(filter(row.is_spare, addresses))


def choices(
    table: PrefixTable, usable: dict[int, PrefixRow], host: HostState
) -> dict[tuple[AddressType, Family], tuple[int, ...]]:
    """Which prefixes serve each type: by preference, then as configured. Those that wander stand
    before others of the same preference, in the order of the period.

    One whose uplink can't carry packets serves nobody, as if the uplink were not there: another one
    of the type does, or hooks find no address, and the class's `on_failure` decides. Nor does a
    lingering one. What stands in comes last.
    """
    chosen: dict[tuple[AddressType, Family], list[Row]] = {}
    for row in table:
        if row.prefix.lingering or row.prefix.id not in usable:
            continue
        if (row.prefix.waits and is_set_up(row.prefix, host)) or absence(row, host) is None:
            chosen.setdefault((row.prefix.type, row.prefix.family), []).append(row)

    places = _places(table)

    def rank(row: Row) -> tuple[bool, int, int, int]:
        first = row.prefix.stands_in, -row.prefix.preference
        place = places.get(row.prefix.id)
        if place is not None:
            return *first, 0, place
        return *first, 1, row.prefix.order

    return {key: tuple(r.prefix.id for r in sorted(rows, key=rank)) for key, rows in chosen.items()}


def _places(table: PrefixTable) -> dict[int, int]:
    """Where each prefix that wanders stands among those with which it does, by its id."""
    together = groups(row.prefix for row in table if not row.prefix.lingering)
    if not together:
        return {}
    key = wandering.wander_key(table.secret, table.boot)
    return {
        prefix_id: place
        for wanderers, prefixes in together.items()
        for place, prefix_id in enumerate(
            wandering.order([p.id for p in prefixes], wanderers, prefixes[0].period, key)
        )
    }
