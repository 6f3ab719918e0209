"""Uplinks whose addresses and routes others manage: what they have is looked up at each look.

Nothing is remembered of them and nobody tells of a change: whatever a network manager has done to
its interface since, the next look at the host finds it, as it finds all else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from ipaddress import IPv6Network, ip_network
from typing import Final

from odm_agent.core.host import HostState, Link, LocalAddress
from odm_agent.core.model import AddressType, Family, IPAddress, IPNetwork, TypedPrefix
from odm_agent.prefixes.renumbered import renumbered
from odm_agent.prefixes.table import PrefixTable, Row

#: For these a temporary address is the right one, where there is one (RFC 8981); others are to be
#: known by their address, or to live long.
_BRIEF: Final = frozenset({AddressType.NONPERSISTENT, AddressType.GRACEFUL_REPLACEMENT})
#: Addresses that lead to no other site (RFC 4193).
_LOCAL: Final = IPv6Network("fc00::/7")


def followed(table: PrefixTable, host: HostState) -> PrefixTable:
    """The table with what managed uplinks have now; the same one if that is as it was."""
    if not any(row.prefix.managed for row in table):
        return table
    taken: dict[tuple[Family, AddressType | None], set[str]] = {}
    rows: list[Row] = []
    for row in table:
        if (prefix := row.prefix).managed:
            # An interface has one row, and one of each other type that its routers name.
            key = prefix.family, prefix.type if prefix.hinted else None
            others = taken.setdefault(key, set())
            row = _followed(row, table, host, others)
            others.add(row.prefix.interface)
        rows.append(row)
    rows = _of_one_type(rows, table, host)
    return table if tuple(rows) == table.rows else replace(table, rows=tuple(rows))


def _of_one_type(rows: list[Row], before: PrefixTable, host: HostState) -> list[Row]:
    """The rows without addresses that another one has, too: two networks may give a host the same.

    Such an address has one type. It is that of an exclusive uplink, so that nobody else gets it by
    the other; else it serves where packets are carried, or is the first one's.
    """

    def rank(row: Row) -> tuple[bool, bool, int]:
        link = host.links.get(row.prefix.interface)
        return not row.prefix.exclusive, link is None or not link.up, row.prefix.order

    owners: dict[IPAddress, Row] = {}
    for row in sorted((each for each in rows if each.prefix.managed), key=rank):
        for address in row.addresses:
            owners.setdefault(address, row)
    if all(owners[a] is row for row in rows if row.prefix.managed for a in row.addresses):
        return rows
    return [_only(row, owners, before) if row.prefix.managed else row for row in rows]


def _only(row: Row, owners: Mapping[IPAddress, Row], before: PrefixTable) -> Row:
    addresses = tuple(each for each in row.addresses if owners[each] is row)
    found = Row(
        replace(row.prefix, spans=_spans(row.prefix, addresses)),
        addresses,
        forgotten=row.forgotten.intersection(addresses),
    )
    known = before.by_id(row.prefix.id)
    return known if known == found else found


def _spans(prefix: TypedPrefix, addresses: tuple[IPAddress, ...]) -> tuple[IPNetwork, ...]:
    """What is typed as a whole: of an exclusive uplink each of its addresses."""
    return tuple(ip_network(each) for each in addresses) if prefix.exclusive else ()


def fits(pattern: str, interface: str) -> bool:
    """Whether a name is the one that an uplink names, or one of its glob."""
    return interface != "lo" and fnmatchcase(interface, pattern)


def fits_any(patterns: Iterable[str], interface: str) -> bool:
    """The same of several."""
    return any(fits(pattern, interface) for pattern in patterns)


def _followed(row: Row, table: PrefixTable, host: HostState, taken: set[str]) -> Row:
    prefix = row.prefix
    links = [
        link
        for name, link in host.links.items()
        if fits(prefix.pattern, name) and name not in taken
    ]
    if not links:
        return _unless_same(row, Row(replace(prefix, interface=prefix.pattern, spans=()), ()))
    held = {link.name: _held(prefix, link.name, table, host) for link in links}
    best = min(links, key=lambda link: _rank(link, prefix, held[link.name], host))
    addresses = tuple(local.address for local in held[best.name])
    found = replace(prefix, interface=best.name, spans=_spans(prefix, addresses))
    forgotten = renumbered(best.name, host)
    return _unless_same(row, Row(found, addresses, forgotten=forgotten.intersection(addresses)))


def _unless_same(row: Row, found: Row) -> Row:
    return row if row == found else found


def _rank(
    link: Link, prefix: TypedPrefix, held: list[LocalAddress], host: HostState
) -> tuple[bool, bool, bool, int, bool, int]:
    """Of several interfaces the one that carries packets, by the best default route."""
    way = host.ways.get((prefix.family, link.name))
    dead = (prefix.family, link.name) in host.dead
    return not link.up, way is None, dead, way.cost if way else 0, not held, link.index


def _held(
    prefix: TypedPrefix, interface: str, table: PrefixTable, host: HostState
) -> list[LocalAddress]:
    """The addresses that others have put there, those first that sockets are to be given."""
    found = [
        local
        for local in host.addresses
        if local.interface == interface
        and local.address.version == prefix.family
        and not (local.ours or local.failed)
        and _is_global(local.address)
        and not _is_of_a_prefix(local, table)
        and _is_of_type(local, prefix, host)
    ]
    return sorted(found, key=lambda local: _place(local, prefix.type))


def _is_of_type(local: LocalAddress, prefix: TypedPrefix, host: HostState) -> bool:
    """Whether it is a row's by what routers say: without a word it has the type of the uplink."""
    hint = host.hint(local)
    return hint is prefix.type or (hint is None and not prefix.hinted)


def _place(local: LocalAddress, type_: AddressType) -> tuple[bool, bool, bool, int]:
    temporary = local.secondary and local.address.version == 6
    wrong_kind = local.secondary if local.address.version == 4 else temporary != (type_ in _BRIEF)
    is_local = local.address.version == 6 and local.address in _LOCAL
    return local.deprecated, is_local, wrong_kind, int(local.address)


def _is_of_a_prefix(local: LocalAddress, table: PrefixTable) -> bool:
    """Whether it lies in a typed prefix of the configuration, and so has that one's type."""
    row = table.span_of(local.address)
    return row is not None and not row.prefix.managed and table.typed_for(local) is not None


def _is_global(address: IPAddress) -> bool:
    return not (
        address.is_link_local
        or address.is_loopback
        or address.is_multicast
        or address.is_unspecified
    )
