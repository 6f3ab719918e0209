"""The typed prefix table: the one truth of which everything in the kernel is a projection."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from odm_agent.core.host import LocalAddress
from odm_agent.core.lifetimes import OVER, AddressLease, Phase
from odm_agent.core.model import (
    CONFIGURED_AT_MOST,
    OWN_AT_MOST,
    AddressType,
    Family,
    IPAddress,
    Placement,
    Seat,
    TypedPrefix,
)
from odm_agent.prefixes.addresses import addresses, bounds, numbers_of
from odm_agent.prefixes.memory import Given, Known, Memory


@dataclass(frozen=True)
class Row:
    """A prefix and its addresses, in the order of their numbers; `known` outlives the agent.

    `forgotten` are those of a managed one whose own prefix its router announces no more.
    """

    prefix: TypedPrefix
    addresses: tuple[IPAddress, ...]
    known: Known = field(default_factory=Known)
    forgotten: frozenset[IPAddress] = frozenset()

    @property
    def conflicts(self) -> frozenset[IPAddress]:
        """The addresses that somebody else turned out to use."""
        return frozenset(self.known.conflicts)

    @property
    def any_ip(self) -> bool:
        """Whether the prefix is local as a whole, by a route."""
        return self.prefix.any_ip

    @cached_property
    def leases(self) -> dict[IPAddress, AddressLease]:
        """The leases of those addresses that end by themselves; one that all of a prefix share is
        not among these."""
        if self.prefix.one_lease:
            return {}
        by_number = {each.number: each for each in self.prefix.addresses}
        there = frozenset(self.addresses)
        return {
            address: by_number[number]
            for number, address in self.known.kept.items()
            if number in by_number and address in there
        }

    def serves(self, address: IPAddress) -> bool:
        """Whether sockets are given an address, or will be when another one is over."""
        lease = self.leases.get(address)
        if lease is not None and lease.phase is Phase.LINGERING:
            return False
        return address not in self.forgotten

    def is_spare(self, address: IPAddress) -> bool:
        """Whether sockets are given an address only when all current ones are over."""
        lease = self.leases.get(address)
        return lease is not None and lease.phase in (Phase.SPARE, Phase.PROBING)

    def lease_id(self, address: IPAddress) -> int:
        """The id of an address's lease; 0: it never ends."""
        if self.prefix.one_lease:
            return self.span_lease
        return self.leases[address].id if address in self.leases else 0

    def seat_of(self, address: IPAddress) -> Seat | None:
        """The seat whose own an address is; None: it is shared, or its class has none any more."""
        lease = self.leases.get(address)
        return self.prefix.seat_of(lease.class_name) if lease is not None else None

    def class_of(self, address: IPAddress) -> str:
        """The class whose own an address is, or was; "": it is shared."""
        lease = self.leases.get(address)
        return lease.class_name if lease is not None else ""

    @property
    def makes_own(self) -> bool:
        """Whether hooks can make an address of its own for each socket that asks for a new one.

        Not where that would go round the ends of the addresses that there are.
        """
        prefix = self.prefix
        return (
            self.any_ip
            and prefix.family is Family.IPV6
            and prefix.network.prefixlen <= OWN_AT_MOST
            and prefix.type is not AddressType.FIXED
            and self.span_lease != OVER
        )

    @property
    def span_lease(self) -> int:
        """The id of the lease of what the prefix holds beside its configured addresses; 0: none.

        Where the hooks end these, nothing else may be sent from: that would go round their ends.
        """
        if self.prefix.by_class or self.prefix.is_over:  # by class: it would be no class's own
            return OVER
        if not self.prefix.addresses:
            return 0
        if self.prefix.one_lease:
            return self.prefix.addresses[0].id
        if self.prefix.terms.end_in_kernel:
            return OVER
        if not self.prefix.ends:
            return 0
        # Where sockets have addresses of their own, these end with the prefix, as the others do.
        return self.prefix.addresses[0].id if self.prefix.opened else OVER

    @cached_property
    def configured(self) -> tuple[IPAddress, ...]:
        """The addresses that are to exist on an interface; the others are local by a route only.

        Of the spares, as many: all current ones may end at once.
        """
        if not self.any_ip:
            return self.addresses
        current = [each for each in self.addresses if not self.is_spare(each) and self.serves(each)]
        spares = [each for each in self.addresses if self.is_spare(each)]
        return (*current[:CONFIGURED_AT_MOST], *spares[:CONFIGURED_AT_MOST])

    @cached_property
    def unconfigured(self) -> tuple[IPAddress, ...]:
        """The addresses that are local by a route only."""
        configured = frozenset(self.configured)
        return tuple(each for each in self.addresses if each not in configured)

    @property
    def holder(self) -> str:
        """The interface that holds the addresses."""
        return "lo" if self.prefix.placement is Placement.DELEGATED else self.prefix.interface

    @property
    def trouble(self) -> str | None:
        """Why the prefix has fewer addresses than it should; None if it has all of them."""
        if self.prefix.managed:  # it has what others give it
            return None
        current = [each for each in self.addresses if self.serves(each) and not self.is_spare(each)]
        wanted = len(self.prefix.seats) if self.prefix.by_class else self.prefix.pool
        missing = wanted - len(current)
        if missing <= 0:
            return None
        used = ", ".join(str(a) for a in sorted(self.conflicts, key=int)) or "none"
        what = "no address" if not current else f"{missing} of {wanted} missing"
        return f"{what}: addresses found in use by another host: {used}"


@dataclass(frozen=True)
class PrefixTable:
    """All typed prefixes, in the order of the configuration. Every change makes a new table."""

    secret: bytes = field(repr=False)
    rows: tuple[Row, ...] = ()
    memory: Memory = field(default_factory=Memory, repr=False)
    #: Which boot it is: what hangs on the boot-time clock is not to be the same after the next.
    boot: str = ""

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def with_prefix(self, prefix: TypedPrefix) -> "PrefixTable":
        """Add a prefix, or replace the one with its id; it keeps the addresses that it ever had."""
        return self.with_only([*(r.prefix for r in self.rows if r.prefix.id != prefix.id), prefix])

    def with_only(self, prefixes: Iterable[TypedPrefix]) -> "PrefixTable":
        """The table of exactly these prefixes (a configuration that was read again).

        Where conflicts have left a prefix without an address, and without another to take, what was
        in use elsewhere is tried again: it may be free now.
        """
        memory = self.remembered()
        rows = []
        for prefix in prefixes:
            if prefix.managed:
                rows.append(self._as_found(prefix))
                continue
            memory = memory.without(_past(prefix, memory))
            row = self._row(prefix, memory.between(*bounds(prefix)))
            if retry := _given_up(row):
                memory = memory.without(retry)
                row = self._row(prefix, memory.between(*bounds(prefix)))
            rows.append(row)
        return replace(self, rows=tuple(sorted(rows, key=_order)), memory=memory)

    def _as_found(self, prefix: TypedPrefix) -> Row:
        """An uplink of others with what was found there last: the next look finds what is new."""
        known = self.by_id(prefix.id)
        if known is None or not known.prefix.managed or known.prefix.pattern != prefix.pattern:
            return Row(prefix, ())
        spans = known.prefix.spans if prefix.exclusive else ()
        found = replace(prefix, interface=known.prefix.interface, spans=spans)
        return Row(found, known.addresses, forgotten=known.forgotten)

    def without(self, prefix_id: int) -> "PrefixTable":
        """Take a prefix out; one that is not there counts as taken out."""
        rows = tuple(r for r in self.rows if r.prefix.id != prefix_id)
        return replace(self, rows=rows, memory=self.remembered())

    def with_conflict(self, address: IPAddress) -> "PrefixTable":
        """Note that another host uses `address` (RFC 4862 5.4.5, RFC 5227 2.1.1): use the next one.

        An IPv6 address is replaced three times (RFC 7217, section 6), an IPv4 address until the
        range is used up; `Row.trouble` then says so. An address that is not ours changes nothing.
        """
        for row in self.rows:
            if address not in row.addresses:
                continue
            number = next(n for n, each in row.known.kept.items() if each == address)
            new = self._row(row.prefix, row.known.with_conflict(address, number))
            return replace(self, rows=tuple(new if r is row else r for r in self.rows))
        return self

    def remembered(self) -> Memory:
        """All that must be known the next time, so that no address changes."""
        rows: dict[IPAddress, Given] = {}
        for row in self.rows:
            rows |= row.known.given()
        return self.memory.including(rows)

    def by_id(self, prefix_id: int) -> Row | None:
        """The prefix with this id."""
        return next((r for r in self.rows if r.prefix.id == prefix_id), None)

    def addresses_of(self, prefix_id: int) -> tuple[IPAddress, ...]:
        """All addresses of a prefix; none if there is no such prefix."""
        row = self.by_id(prefix_id)
        return row.addresses if row else ()

    def span_of(self, address: IPAddress) -> Row | None:
        """The prefix in whose typed networks an address lies: the longest match."""
        number, bits = int(address), address.max_prefixlen
        for length, rows in self._spans.get(address.version, ()):
            if (row := rows.get(number >> (bits - length))) is not None:
                return row
        return None

    def typed_for(self, local: LocalAddress) -> Row | None:
        """The prefix whose type an address that is not ours has for everybody; None: it is untyped.

        What a router or DHCP server gave to this host is the host's own, also in a typed network:
        no neighbour takes away the network of sockets of no class. An exclusive uplink takes it.
        """
        row = self.span_of(local.address)
        if row is None or row.prefix.managed:
            return row
        return None if row.prefix.untyped_allowed or local.from_network else row

    @cached_property
    def _spans(self) -> dict[int, list[tuple[int, dict[int, Row]]]]:
        """By IP version: prefix lengths, the longest first, each with its networks' numbers."""
        found: dict[int, dict[int, dict[int, Row]]] = {}
        for row in self.rows:
            for span in row.prefix.spans:
                of_length = found.setdefault(span.version, {}).setdefault(span.prefixlen, {})
                number = int(span.network_address) >> (span.max_prefixlen - span.prefixlen)
                of_length.setdefault(number, row)
        return {version: sorted(spans.items(), reverse=True) for version, spans in found.items()}

    def _row(self, prefix: TypedPrefix, known: Known) -> Row:
        made = addresses(prefix, self.secret, known)
        return Row(prefix, tuple(made.values()), replace(known, kept={**known.kept, **made}))


def _past(prefix: TypedPrefix, memory: Memory) -> set[IPAddress]:
    """Former addresses of a prefix whose addresses end: they are free again."""
    if prefix.one_lease or not prefix.addresses:
        return set()
    kept = prefix.resting.union(each.number for each in prefix.addresses)
    known = memory.between(*bounds(prefix)).kept
    return {address for number, address in known.items() if number not in kept}


def _given_up(row: Row) -> set[IPAddress]:
    """The conflicts to which it is due that numbers of the pool have no address."""
    missing = set(numbers_of(row.prefix)) - row.known.kept.keys()
    if row.prefix.family is Family.IPV4:  # any address of the range serves any number
        return set(row.known.conflicts) if missing else set()
    return {address for address, number in row.known.conflicts.items() if number in missing}


def _order(row: Row) -> tuple[int, int]:
    return row.prefix.order, row.prefix.id
