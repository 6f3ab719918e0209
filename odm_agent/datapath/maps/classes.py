"""A class's policy as its rows in odm_classes and odm_caps."""

from collections.abc import Collection, Mapping
from typing import Final

from odm_agent.core.model import TYPES, AddressType, Cap, ClassPolicy, Limit, Mode, SocketKind
from odm_agent.datapath import abi, libbpf

_NS_PER_S: Final = 1_000_000_000
_NS_PER_MINUTE: Final = 60 * _NS_PER_S
_REFUSE: Final = {
    SocketKind.RAW: abi.REFUSE_RAW,
    SocketKind.PING: abi.REFUSE_PING,
    SocketKind.MPTCP: abi.REFUSE_MPTCP,
    SocketKind.UDPLITE: abi.REFUSE_UDPLITE,
    SocketKind.PACKET: abi.REFUSE_PACKET,
    SocketKind.XDP: abi.REFUSE_XDP,
}


def pack(policy: ClassPolicy | None) -> abi.Class:
    """The row of odm_classes; None: that of a class which is not there."""
    if policy is None:
        return abi.Class()
    flags = abi.CLASS_STRICT if policy.strict else 0
    flags |= abi.CLASS_FAIL_CLOSED if policy.fail_closed else 0
    flags |= abi.CLASS_CAPPED if policy.caps else 0
    return abi.Class(
        mode=policy.mode,
        allow=abi.pack_types(policy.allow),
        default_type=policy.default,
        flags=flags,
        refuse=sum(_REFUSE[kind] for kind in policy.refuse),
    )


def caps(policy: ClassPolicy | None) -> dict[AddressType, abi.Cap]:
    """The rows of odm_caps by type; all 0 where there is no cap."""
    rows = {type_: abi.Cap() for type_ in TYPES}
    for cap in policy.caps if policy else ():
        interval = _NS_PER_MINUTE // cap.requests_per_minute if cap.requests_per_minute else 0
        rows[cap.type] = abi.Cap(
            sockets=cap.sockets,
            requests_per_minute=cap.requests_per_minute,
            interval_ns=interval,
            burst_ns=interval * max(cap.requests_per_minute - 1, 0),
        )
    return rows


def limits(policy: ClassPolicy | None) -> dict[AddressType, abi.Limit]:
    """The rows of odm_limits by type; all 0 where there is no limit."""
    rows = {type_: abi.Limit() for type_ in TYPES}
    for limit in policy.limits if policy else ():
        rows[limit.type] = abi.Limit(longest_ns=limit.longest_s * _NS_PER_S, bytes=limit.bytes)
    return rows


def unpack(class_id: int, row: abi.Class, maps: Mapping[str, libbpf.Map]) -> ClassPolicy:
    """The policy that a row of odm_classes stands for, with its rows by type (without names)."""
    at = {type_: abi.usage_index(class_id, type_) for type_ in TYPES}
    rows = {type_: maps["odm_caps"].get(index) for type_, index in at.items()}
    limit_rows = {type_: maps["odm_limits"].get(index) for type_, index in at.items()}
    return ClassPolicy(
        id=class_id,
        name="",
        allow=abi.unpack_types(row.allow),
        default=AddressType(row.default_type),
        mode=Mode(row.mode),
        strict=bool(row.flags & abi.CLASS_STRICT),
        fail_closed=bool(row.flags & abi.CLASS_FAIL_CLOSED),
        refuse=frozenset(kind for kind, bit in _REFUSE.items() if row.refuse & bit),
        caps=frozenset(
            Cap(type_, each.sockets, each.requests_per_minute)
            for type_, each in rows.items()
            if each is not None and (each.sockets or each.requests_per_minute)
        ),
        limits=frozenset(
            Limit(type_, each.longest_ns // _NS_PER_S, each.bytes)
            for type_, each in limit_rows.items()
            if each is not None and (each.longest_ns or each.bytes)
        ),
    )


def is_watched(policy: ClassPolicy) -> bool:
    """Whether sock_create has to know the class of a socket."""
    return policy.mode is not Mode.OFF and bool(policy.refuse or policy.caps)


def dialogue_share(class_ids: Collection[int]) -> int:
    """How many questions of each class are kept (odm_settings): a power of 2.

    The numbers of classes decide, not how many there are, since they name the class's slots.
    """
    highest = max(class_ids, default=0)
    return abi.MAX_DIALOGUES >> max(highest - 1, 0).bit_length()
