"""The rows of maps as the model's values, and back. Those of classes are in `classes`."""

from collections.abc import Sequence

from odm_agent.core.model import AddressType
from odm_agent.core.projection import CgroupRow, LeaseRow, PrefixRow, SourceRow, SpanRow
from odm_agent.datapath import abi
from odm_agent.datapath.base import Sent


def unpack_span(row: abi.Source) -> SpanRow:
    """The typing of a network, from its row of odm_spans."""
    return SpanRow(
        row.prefix_id, AddressType(row.type), bool(row.flags & abi.SOURCE_ANY_IP), row.lease
    )


def pack_span(row: SpanRow) -> abi.Source:
    """The row of odm_spans."""
    flags = abi.SOURCE_ANY_IP if row.any_ip else 0
    return abi.Source(prefix_id=row.prefix_id, type=row.type, flags=flags, lease=row.lease)


def unpack_source(row: abi.Source) -> SourceRow:
    """The typing of an address, from its row of odm_origins."""
    return SourceRow(
        row.prefix_id,
        AddressType(row.type),
        bool(row.flags & abi.SOURCE_BROADCAST),
        row.lease,
        bool(row.flags & abi.SOURCE_SHARED),
        bool(row.flags & abi.SOURCE_MANAGED),
        bool(row.flags & abi.SOURCE_OF_CLASS),
    )


def pack_source(row: SourceRow) -> abi.Source:
    """The row of odm_origins."""
    flags = abi.SOURCE_BROADCAST if row.broadcast else 0
    flags |= abi.SOURCE_SHARED if row.shared else 0
    flags |= abi.SOURCE_MANAGED if row.managed else 0
    flags |= abi.SOURCE_OF_CLASS if row.of_class else 0
    return abi.Source(prefix_id=row.prefix_id, type=row.type, flags=flags, lease=row.lease)


def unpack_cgroup(row: abi.Cgroup) -> CgroupRow:
    """The class of a cgroup, from its row of odm_cgroups."""
    default = row.default_type
    return CgroupRow(
        row.class_id,
        None if default == abi.DEFAULT_OF_CLASS else AddressType(default),
        abi.unpack_types(row.kept),
    )


def pack_cgroup(row: CgroupRow) -> abi.Cgroup:
    """The row of odm_cgroups."""
    default = abi.DEFAULT_OF_CLASS if row.default is None else int(row.default)
    return abi.Cgroup(class_id=row.class_id, default_type=default, kept=abi.pack_types(row.kept))


def unpack_prefix(row: abi.Prefix, slots: Sequence[abi.Slot]) -> PrefixRow:
    """What a row of odm_offers says, with the slots of the pool that it points to."""
    _, _, configured = abi.unpack_pool(row.pool)
    leases = tuple(slot.lease for slot in slots)
    return PrefixRow(
        AddressType(row.type),
        abi.family_of(row.family),
        row.ifindex,
        row.mark,
        tuple(abi.unpack_addr(slot.addr) for slot in slots),
        configured,
        row.spares,
        row.configured_spares,
        leases if any(leases) else (),
        bytes(row.fresh) if any(row.fresh) else b"",
        bool(row.flags & abi.PREFIX_SHARED),
        bool(row.flags & abi.PREFIX_ON_NET),
        bool(row.flags & abi.PREFIX_ON_REQUEST),
        row.new_until_s,
        bool(row.flags & abi.PREFIX_BY_CLASS),
        row.class_id,
        bool(row.flags & abi.PREFIX_WAITS),
    )


def pack_prefix(row: PrefixRow, first: int) -> abi.Prefix:
    """The row of odm_offers, for a pool that begins at the slot `first` of odm_slots."""
    flags = abi.PREFIX_SHARED if row.shared else 0
    flags |= abi.PREFIX_ON_NET if row.on_net else 0
    flags |= abi.PREFIX_ON_REQUEST if row.on_request else 0
    flags |= abi.PREFIX_BY_CLASS if row.by_class else 0
    flags |= abi.PREFIX_WAITS if row.waits else 0
    return abi.Prefix(
        type=row.type,
        family=abi.family_index(row.family),
        spares=row.spares,
        configured_spares=row.configured_spares,
        ifindex=row.ifindex,
        mark=row.mark,
        pool=abi.pack_pool(first, len(row.pool), row.configured),
        fresh=abi.pack_key(row.fresh),
        flags=flags,
        new_until_s=row.new_until_s,
        class_id=row.class_id,
    )


def pack_slots(row: PrefixRow) -> list[abi.Slot]:
    """The slots of odm_slots that a pool takes."""
    leases = row.leases or (0,) * len(row.pool)
    return [
        abi.Slot(addr=abi.pack_addr(address), lease=lease)
        for address, lease in zip(row.pool, leases, strict=True)
    ]


def unpack_lease(row: abi.Lease) -> LeaseRow:
    """When an address ends, from its row of odm_leases."""
    hard = bool(row.flags & abi.LEASE_HARD)
    return LeaseRow(row.preferred_ns, row.valid_ns, row.budget, row.warn, hard)


def pack_lease(row: LeaseRow) -> abi.Lease:
    """The row of odm_leases."""
    return abi.Lease(
        preferred_ns=row.preferred_ns,
        valid_ns=row.valid_ns,
        budget=row.budget,
        warn=row.warn,
        flags=abi.LEASE_TAKEN | (abi.LEASE_HARD if row.hard else 0),
    )


def unpack_meter(row: abi.Meter) -> Sent:
    """What was sent by a lease, from its row of odm_meters."""
    return Sent(row.bytes, row.packets)


def pack_meter(sent: Sent) -> abi.Meter:
    """The row of odm_meters of a lease that begins with this."""
    return abi.Meter(bytes=sent.bytes, packets=sent.packets)


def unpack_seat_key(key: int) -> tuple[int, int]:
    """The prefix and the class of a row of odm_seats."""
    return key % (1 << abi.SEAT_CLASS_SHIFT), key >> abi.SEAT_CLASS_SHIFT


def pack_seat_key(key: tuple[int, int]) -> int:
    """The key of odm_seats for a prefix and a class."""
    prefix_id, class_id = key
    return prefix_id | class_id << abi.SEAT_CLASS_SHIFT


def unpack_choice(row: abi.Choice) -> tuple[int, ...]:
    """The prefix ids of a row of odm_choices, the best first."""
    return tuple(row.prefix_ids[: row.count])


def pack_choice(prefix_ids: Sequence[int]) -> abi.Choice:
    """The row of odm_choices: the best, as many as it holds."""
    ids = prefix_ids[: abi.MAX_CHOICES]
    row = abi.Choice(count=len(ids))
    row.prefix_ids[: len(ids)] = ids
    return row
