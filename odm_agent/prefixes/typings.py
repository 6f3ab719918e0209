"""Which type each source address has: whole networks, and every address of the namespace."""

from odm_agent.core.clock import NEVER
from odm_agent.core.host import Address, HostState
from odm_agent.core.lifetimes import OVER, AddressLease, Terms
from odm_agent.core.model import IPAddress, IPNetwork
from odm_agent.core.projection import LeaseRow, SourceRow, SpanRow
from odm_agent.prefixes.table import PrefixTable

_UNTYPED = SourceRow()


def spans(table: PrefixTable) -> dict[IPNetwork, SpanRow]:
    """A typed prefix is typed as a whole, whether or not it has an address yet."""
    return {
        span: SpanRow(row.prefix.id, row.prefix.type, row.any_ip, row.span_lease)
        for row in table
        for span in row.prefix.spans
    }


def sources(
    table: PrefixTable, wanted: frozenset[Address], host: HostState
) -> dict[IPAddress, SourceRow]:
    """The typing of each address that the namespace has, or is about to get from us.

    Those of an uplink of others are what its type says, to everybody or to classes alone.

    An address of ours that the table knows no more, outside all typed networks, is left out: what
    was recorded about it holds until it is gone.
    """
    ours = {local.address for local in host.addresses if local.ours}
    rows: dict[IPAddress, SourceRow] = {}
    for local in host.addresses:
        rows |= dict.fromkeys(local.broadcasts, SourceRow(broadcast=True))
    for local in host.addresses:
        span = table.span_of(local.address)
        if span is None:
            if local.address not in ours:
                rows[local.address] = _UNTYPED
        elif local.address in ours:  # one that was ours, unless it is found below
            lease = span.span_lease
            rows[local.address] = SourceRow(span.prefix.id, span.prefix.type, lease=lease)
        elif table.typed_for(local):
            rows[local.address] = SourceRow(span.prefix.id, span.prefix.type)
        else:
            rows[local.address] = _UNTYPED
    known = rows.keys() | {address.address for address in wanted}
    for row in table:
        by_route = frozenset(() if row.prefix.one_lease else row.unconfigured)
        for address in (*row.configured, *by_route):
            if address in known or address in by_route:
                seat = row.seat_of(address)
                rows[address] = SourceRow(
                    row.prefix.id if seat is None else seat.number,
                    row.prefix.type,
                    lease=row.lease_id(address),
                    shared=row.prefix.shared,
                    managed=row.prefix.managed,
                    of_class=bool(row.class_of(address)),
                )
    return rows


def leases(table: PrefixTable) -> dict[int, LeaseRow]:
    """Until when, and for how many bytes, addresses serve, by the ids of their leases."""
    rows = {
        lease.id: _lease_row(lease, row.prefix.terms_of(lease.class_name))
        for row in table
        for lease in row.prefix.addresses
    }
    if any(row.span_lease == OVER for row in table):
        rows[OVER] = LeaseRow(valid_ns=1)
    return rows


def _lease_row(lease: AddressLease, terms: Terms) -> LeaseRow:
    return LeaseRow(
        preferred_ns=_ns(lease.lifetime.preferred_until_s),
        valid_ns=_ns(lease.lifetime.valid_until_s),
        budget=terms.budget or 0,
        warn=terms.warn or 0,
        hard=terms.hard,
    )


def _ns(boot_s: float) -> int:
    """Boot-time nanoseconds, 0 for never; rounded down, since no lifetime may be longer."""
    return 0 if boot_s == NEVER else max(1, int(boot_s * 1e9))
