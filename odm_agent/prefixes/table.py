"""The typed prefix table: the one truth of which everything in the kernel is a projection."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from odm_agent.model import AddressType, Family, IPAddress, Placement, TypedPrefix
from odm_agent.prefixes.pools import addresses
from odm_agent.prefixes.rfc7217 import IDGEN_RETRIES

#: A delegated pool larger than this is made local by a route: each configured address costs every
#: untyped IPv6 connect of the namespace a little, since the kernel looks at all of them.
CONFIGURED_AT_MOST: Final = 16


@dataclass(frozen=True, slots=True)
class Row:
    """A prefix and its addresses; `conflicts` are those that somebody else turned out to use."""

    prefix: TypedPrefix
    addresses: tuple[IPAddress, ...]
    dad_counters: Mapping[int, int] = field(default_factory=dict)
    conflicts: frozenset[IPAddress] = frozenset()

    @property
    def any_ip(self) -> bool:
        """Whether the prefix is local as a whole, by a route."""
        return (
            self.prefix.placement is Placement.DELEGATED and self.prefix.pool > CONFIGURED_AT_MOST
        )

    @property
    def configured(self) -> tuple[IPAddress, ...]:
        """The addresses that are to exist on an interface; the others are local by a route only."""
        return self.addresses[:CONFIGURED_AT_MOST] if self.any_ip else self.addresses

    @property
    def holder(self) -> str:
        """The interface that holds the addresses."""
        return "lo" if self.prefix.placement is Placement.DELEGATED else self.prefix.interface

    @property
    def trouble(self) -> str | None:
        """Why the prefix has fewer addresses than it should; None if it has all of them."""
        missing = self.prefix.pool - len(self.addresses)
        if missing <= 0:
            return None
        used = ", ".join(str(a) for a in sorted(self.conflicts, key=int)) or "none"
        what = "no address" if not self.addresses else f"{missing} of {self.prefix.pool} missing"
        return f"{what}: addresses found in use by another host: {used}"


@dataclass(frozen=True, slots=True)
class PrefixTable:
    """All typed prefixes, in the order of the configuration. Every change makes a new table."""

    secret: bytes = field(repr=False)
    rows: tuple[Row, ...] = ()

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def with_prefix(self, prefix: TypedPrefix) -> "PrefixTable":
        """Add a prefix, or replace the one with its id.

        What duplicate address detection found out stays known, unless addresses are made
        differently now.
        """
        old = self.by_id(prefix.id)
        if old and _addressing(old.prefix) == _addressing(prefix):
            row = self._row(prefix, old.dad_counters, old.conflicts)
        else:
            row = self._row(prefix, {}, frozenset())
        others = [r for r in self.rows if r.prefix.id != prefix.id]
        return replace(self, rows=tuple(sorted([*others, row], key=_order)))

    def with_only(self, prefixes: Iterable[TypedPrefix]) -> "PrefixTable":
        """The table of exactly these prefixes (a configuration that was read again)."""
        table, wanted = self, list(prefixes)
        for row in self.rows:
            if row.prefix.id not in {p.id for p in wanted}:
                table = table.without(row.prefix.id)
        for prefix in wanted:
            table = table.with_prefix(prefix)
        return table

    def without(self, prefix_id: int) -> "PrefixTable":
        """Take a prefix out; one that is not there counts as taken out."""
        return replace(self, rows=tuple(r for r in self.rows if r.prefix.id != prefix_id))

    def with_conflict(self, address: IPAddress) -> "PrefixTable":
        """Note that another host uses `address` (RFC 4862 5.4.5, RFC 5227 2.1.1): use the next one.

        An IPv6 address is replaced three times (RFC 7217, section 6), an IPv4 address until the
        range is used up; `Row.trouble` then says so. An address that is not ours changes nothing.
        """
        for row in self.rows:
            if address not in row.addresses:
                continue
            conflicts = row.conflicts | {address}
            counters = dict(row.dad_counters)
            if row.prefix.family is Family.IPV6:
                index = _pool_index(row, address)
                counters[index] = counters.get(index, 0) + 1
            new = self._row(row.prefix, counters, conflicts)
            return replace(self, rows=tuple(new if r is row else r for r in self.rows))
        return self

    def forgetting_conflicts(self, prefix_id: int) -> "PrefixTable":
        """Begin again with a prefix's first addresses (its network may have changed)."""
        row = self.by_id(prefix_id)
        return self.without(prefix_id).with_prefix(row.prefix) if row else self

    def by_id(self, prefix_id: int) -> Row | None:
        """The prefix with this id."""
        return next((r for r in self.rows if r.prefix.id == prefix_id), None)

    def by_name(self, name: str) -> Row | None:
        """The prefix with this name."""
        return next((r for r in self.rows if r.prefix.name == name), None)

    def of_type(self, type_: AddressType, family: Family | None = None) -> tuple[Row, ...]:
        """The prefixes of a type, of one family or of both."""
        return tuple(
            r for r in self.rows if r.prefix.type is type_ and family in (None, r.prefix.family)
        )

    def addresses_of(self, prefix_id: int) -> tuple[IPAddress, ...]:
        """All addresses of a prefix; none if there is no such prefix."""
        row = self.by_id(prefix_id)
        return row.addresses if row else ()

    def span_of(self, address: IPAddress) -> Row | None:
        """The prefix in whose typed networks an address lies: the longest match."""
        best: Row | None = None
        length = -1
        for row in self.rows:
            for span in row.prefix.spans:
                if span.version == address.version and address in span and span.prefixlen > length:
                    best, length = row, span.prefixlen
        return best

    def _row(
        self, prefix: TypedPrefix, counters: Mapping[int, int], conflicts: frozenset[IPAddress]
    ) -> Row:
        made = addresses(prefix, self.secret, counters, conflicts)
        return Row(prefix, made, counters, conflicts)


def _pool_index(row: Row, address: IPAddress) -> int:
    """The number within the pool that `address` was made for (given-up numbers have no address)."""
    numbers = [i for i in range(row.prefix.pool) if row.dad_counters.get(i, 0) <= IDGEN_RETRIES]
    return numbers[row.addresses.index(address)]


def _addressing(prefix: TypedPrefix) -> tuple[object, ...]:
    return prefix.network, prefix.interface, prefix.placement, prefix.range


def _order(row: Row) -> tuple[int, int]:
    return row.prefix.order, row.prefix.id
