"""The Python mirror of bpf/odm_abi.h; tests/kernel/test_abi.py compiles that and compares.

All integers are in host order but addresses and ports, which are in network order as in packets.
"""

import ctypes as ct
from collections.abc import Collection
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import ClassVar, Final, NamedTuple

from odm_agent.core.model import TYPES, AddressType, Family, IPAddress, IPNetwork

ABI_TAG: Final = 11
STORAGE_TAG: Final = 2

MAX_CLASSES: Final = 256
MAX_PREFIXES: Final = 1024
MAX_POOL: Final = 65536
MAX_LEASED: Final = 256
MAX_CHOICES: Final = 8
MAX_SOURCES: Final = 16384
MAX_SPANS: Final = 4096
BLOCK_SHIFT4: Final = 4
BLOCK_BITS: Final = 12
BLOCK_WORDS: Final = 64
BLOCK_FACTOR: Final = 0x9E3779B1
MAX_LEASES: Final = 16384
MAX_EVENTS: Final = 262144
MAX_LIFETIME_BYTES: Final = 1_000_000_000_000_000_000
REQUEST_SIZE: Final = 16
REFUSED_NS: Final = 100_000_000
SEAT_CLASS_SHIFT: Final = 16
NEED_NS: Final = 1_000_000_000
NEED_CLASS_SHIFT: Final = 56
NEED_TYPE_SHIFT: Final = 53
NEED_FAMILY_SHIFT: Final = 52
NEED_WISH_SHIFT: Final = 50
NEED_TURN_SHIFT: Final = 32
NEED_TURN_MASK: Final = 0x3FFFF
WISH_ON_NET: Final = 0x01
WISH_FRESH: Final = 0x02
NEEDS_OF_CLASS: Final = 4
MAX_CGROUPS: Final = 16384
MAX_STRANGERS: Final = 1024
MAX_DEPTH: Final = 32
MAX_DIALOGUES: Final = 131072
MAX_UPLINKS: Final = 1024
MAX_NEEDS: Final = 32768
MAX_VERDICTS: Final = 8192
MAX_LIVE: Final = 65536
MAX_STEPS: Final = 16384
MAX_FOLDERS: Final = 16384
MAX_FOREIGN_FOLDERS: Final = 4096
MAX_DELEGATED: Final = 1024
NAME_SIZE: Final = 256
GLOB_WORDS: Final = 16
GLOB_BITS: Final = 1024
BYTES: Final = 256
UNDECIDED_CLASS: Final = 255
#: The row of odm_members for folders that others than root caused.
FOREIGN_FOLDERS: Final = MAX_CLASSES
#: Rows of odm_missed: some more than there are kinds of loss, so that one more is no other map.
MISSED: Final = 16
#: The rows of odm_choices: types by families. Those of odm_caps and odm_usage: classes by types.
CHOICES: Final = 10
USAGES: Final = MAX_CLASSES * 5

FIELD_SHIFT: Final = 16
FIELD_MASK: Final = 0x00070000
ON_NET: Final = 0x00080000
FRESH: Final = 0x00100000
FIELD_ZERO: Final = 0xFFE00000
FLAGS_MASK: Final = 0x0000FFFF

CLASS_STRICT: Final = 0x01
CLASS_FAIL_CLOSED: Final = 0x02
CLASS_CAPPED: Final = 0x04
REFUSE_RAW: Final = 0x01
REFUSE_PING: Final = 0x02
REFUSE_MPTCP: Final = 0x04
REFUSE_UDPLITE: Final = 0x08
REFUSE_PACKET: Final = 0x10
REFUSE_XDP: Final = 0x20
DEFAULT_OF_CLASS: Final = 0xFF
STEP_ENDS: Final = 0x01
FOLDER_TRUSTED: Final = 0x01
FOLDER_GLOBS: Final = 0x02
SOURCE_BROADCAST: Final = 0x01
SOURCE_ANY_IP: Final = 0x02
SOURCE_MANAGED: Final = 0x08
SOURCE_SHARED: Final = 0x04
SOURCE_OF_CLASS: Final = 0x10
PREFIX_SHARED: Final = 0x01
PREFIX_ON_REQUEST: Final = 0x02
PREFIX_ON_NET: Final = 0x04
PREFIX_BY_CLASS: Final = 0x08
PREFIX_WAITS: Final = 0x10
LEASE_HARD: Final = 0x01
LEASE_TAKEN: Final = 0x02
SOCKET_FOREIGN: Final = 0x01
SOCKET_RAW: Final = 0x02
SOCKET_FREEBIND: Final = 0x04
SOCKET_TRACKED: Final = 0x08
SOCKET_NONLOCAL: Final = 0x10
SOCKET_SUBFLOW: Final = 0x20
SOCKET_BOUND: Final = 0x40
SOCKET_GIVEN: Final = 0x80
SOCKET_ENDING: Final = 0x100
SOCKET_DRAWN: Final = 0x200
SOCKET_ON_NET: Final = 0x400
SOCKET_FRESH: Final = 0x800
SOCKET_REMARKED: Final = 0x1000
HELD_BY_USER: Final = 0x01
HELD_BY_KERNEL: Final = 0x02
HELD_BOUND: Final = 0x04
HELD_UNCONFIGURED: Final = 0x08
HELD_ROWLESS: Final = 0x10


class Verdict(IntEnum):
    """enum odm_verdict."""

    ACCEPT = 0
    ASSIGN = 1
    REFUSE = 2
    AUDIT = 3


class Reason(IntEnum):
    """enum odm_reason."""

    NONE = 0
    BOUND = 1
    MARKED = 2
    REWRITTEN = 3
    ANSWERED = 4
    ALLOWED = 5
    CLASS = 6
    CREATOR = 7
    OTHER_TYPE = 8
    NO_ADDRESS = 9
    NOT_LOCAL = 10
    STRICT = 11
    FOREIGN_MARK = 12
    BAD_FIELD = 13
    BAD_FLAGS = 14
    NO_STORAGE = 15
    ACCEPTED_OPTION = 16
    FAIL_OPEN = 17
    CLOSED = 18
    CAP_SOCKETS = 19
    CAP_REQUESTS = 20
    UPLINK = 21
    UNDECIDED = 22
    ENDED = 23
    LIFETIME = 24
    OTHER_CLASS = 25


class Hook(IntEnum):
    """enum odm_hook."""

    SETSOCKOPT = 0
    BIND = 1
    CONNECT = 2
    SENDMSG = 3
    EGRESS = 4
    INGRESS = 5
    SOCK_CREATE = 6
    FRAMES = 7


class Loss(IntEnum):
    """enum odm_loss."""

    VERDICT = 0
    SOCKET = 1
    ADDRESS = 2
    CGROUP = 3
    EVENT = 4


class OutlookState(IntEnum):
    """enum odm_outlook_state."""

    NONE = 0
    HELD = 1
    OFFERED = 2
    UNTOLD = 3


class NoticeState(IntEnum):
    """enum odm_notice_state."""

    NONE = 0
    UNBOUND = 1
    PREFERRED = 2
    DEPRECATED = 3
    OVER = 4


class EventKind(IntEnum):
    """enum odm_event_kind."""

    WARN = 0
    SPENT = 1
    REFUSED = 2
    NEED = 3


class ByteKind(IntEnum):
    """enum odm_byte."""

    CHARACTER = 0
    CONTINUED = 1
    SLASH = 2


class FamilyIndex(IntEnum):
    """enum odm_family."""

    IPV4 = 0
    IPV6 = 1


def family_index(family: Family) -> int:
    """The index by which the maps know a family."""
    return FamilyIndex.IPV6 if family is Family.IPV6 else FamilyIndex.IPV4


def family_of(index: int) -> Family:
    """The family of an index."""
    return Family.IPV6 if index == FamilyIndex.IPV6 else Family.IPV4


Fields = ClassVar[list[tuple[str, type] | tuple[str, type, int]]]


class Addr(ct.Structure):
    """struct odm_addr: 16 bytes in network order, IPv4 as ::ffff:a.b.c.d."""

    _fields_ = (("w", ct.c_uint32 * 4),)


class Identity(ct.Structure):
    """struct odm_identity."""

    _fields_ = (
        ("abi_tag", ct.c_uint32),
        ("storage_tag", ct.c_uint32),
        ("source_hash", ct.c_uint8 * 32),
    )


class Settings(ct.Structure):
    """struct odm_settings."""

    _fields_ = (
        ("home_netns", ct.c_uint64),
        ("epoch", ct.c_uint32),
        ("mark_mask", ct.c_uint32),
        ("shared_prefixes", ct.c_uint32),
        ("strict_classes", ct.c_uint32),
        ("protocol", ct.c_uint32),
        ("any_ip_spans", ct.c_uint32),
        ("watched_classes", ct.c_uint32),
        ("zero", ct.c_uint32),
        ("patterns", ct.c_uint64),
        ("dialogue_share", ct.c_uint32),
        ("nonlocal_bind", ct.c_uint32),
    )


class Class(ct.Structure):
    """struct odm_class."""

    _fields_ = (
        ("mode", ct.c_uint8),
        ("allow", ct.c_uint8),
        ("default_type", ct.c_uint8),
        ("flags", ct.c_uint8),
        ("refuse", ct.c_uint8),
        ("pad", ct.c_uint8 * 3),
        ("room", ct.c_uint64 * 3),
    )


class Cap(ct.Structure):
    """struct odm_cap."""

    _fields_ = (
        ("sockets", ct.c_uint32),
        ("requests_per_minute", ct.c_uint32),
        ("interval_ns", ct.c_uint64),
        ("burst_ns", ct.c_uint64),
        ("room", ct.c_uint64),
    )


class Limit(ct.Structure):
    """struct odm_limit."""

    _fields_ = (("longest_ns", ct.c_uint64), ("bytes", ct.c_uint64))


class Turn(ct.Structure):
    """struct odm_turn."""

    _fields_ = (("lock", ct.c_uint32), ("next", ct.c_uint32))


class SocketLifetime(ct.Structure):
    """struct odm_socket_lifetime."""

    _fields_ = (
        ("length_ns", ct.c_uint64),
        ("budget", ct.c_uint64),
        ("ends_ns", ct.c_uint64),
        ("bytes", ct.c_uint64),
        ("addr", Addr),
        ("turn", ct.c_uint32),
        ("over", ct.c_uint32),
        ("room", ct.c_uint64),
    )


class Request(ct.Structure):
    """struct odm_request."""

    _fields_ = (
        ("value", ct.c_uint32),
        ("seconds", ct.c_uint32),
        ("bytes", ct.c_uint64),
        ("seconds_left", ct.c_uint32),
        ("pad", ct.c_uint32),
        ("bytes_left", ct.c_uint64),
    )


class Usage(ct.Structure):
    """struct odm_usage."""

    _fields_ = (
        ("lock", ct.c_uint32),
        ("live", ct.c_uint32),
        ("next_ns", ct.c_uint64),
        ("told_ns", ct.c_uint64),
    )


class LiveKey(ct.Structure):
    """struct odm_live_key."""

    _fields_ = (
        ("addr", Addr),
        ("class_id", ct.c_uint16),
        ("type", ct.c_uint8),
        ("pad", ct.c_uint8),
    )


class Cgroup(ct.Structure):
    """struct odm_cgroup."""

    _fields_ = (
        ("class_id", ct.c_uint16),
        ("default_type", ct.c_uint8),
        ("kept", ct.c_uint8),
        ("epoch", ct.c_uint32),
    )


class Bits(ct.Structure):
    """struct odm_bits."""

    _fields_ = (("words", ct.c_uint64 * GLOB_WORDS),)


class Globs(ct.Structure):
    """struct odm_globs."""

    _fields_ = (
        ("generation", ct.c_uint64),
        ("delegated", Bits),
        ("ends", Bits),
        ("stays", Bits * len(ByteKind)),
        ("moves", Bits * BYTES),
        ("class_ids", ct.c_uint16 * GLOB_BITS),
    )


class StepKey(ct.Structure):
    """struct odm_step_key."""

    _fields_ = (
        ("generation", ct.c_uint64),
        ("node", ct.c_uint32),
        ("pad", ct.c_uint32),
        ("name", ct.c_char * NAME_SIZE),
    )


class Step(ct.Structure):
    """struct odm_step."""

    _fields_ = (
        ("node", ct.c_uint32),
        ("class_id", ct.c_uint16),
        ("flags", ct.c_uint8),
        ("pad", ct.c_uint8),
    )


class FolderKey(ct.Structure):
    """struct odm_folder_key."""

    _fields_ = (("cgroup", ct.c_uint64), ("generation", ct.c_uint64))


class Folder(ct.Structure):
    """struct odm_folder."""

    _fields_ = (
        ("node", ct.c_uint32),
        ("flags", ct.c_uint8),
        ("pad", ct.c_uint8 * 3),
        ("globs", Bits),
    )


class Birth(ct.Structure):
    """struct odm_birth."""

    _fields_ = (("step", StepKey), ("folder", Folder))


class Source(ct.Structure):
    """struct odm_source."""

    _fields_ = (
        ("prefix_id", ct.c_uint16),
        ("type", ct.c_uint8),
        ("flags", ct.c_uint8),
        ("lease", ct.c_uint32),
    )


class SpanKey(ct.Structure):
    """struct odm_span_key."""

    _fields_ = (("prefix_length", ct.c_uint32), ("addr", Addr))


class Lease(ct.Structure):
    """struct odm_lease."""

    _fields_ = (
        ("preferred_ns", ct.c_uint64),
        ("valid_ns", ct.c_uint64),
        ("budget", ct.c_uint64),
        ("warn", ct.c_uint64),
        ("flags", ct.c_uint32),
        ("pad", ct.c_uint32),
        ("room", ct.c_uint64),
    )


class Meter(ct.Structure):
    """struct odm_meter."""

    _fields_ = (
        ("lock", ct.c_uint32),
        ("told", ct.c_uint32),
        ("bytes", ct.c_uint64),
        ("packets", ct.c_uint64),
        ("room", ct.c_uint64),
    )


class Traffic(ct.Structure):
    """struct odm_traffic."""

    _fields_ = (("bytes", ct.c_uint64), ("packets", ct.c_uint64))


class Event(ct.Structure):
    """struct odm_event."""

    _fields_ = (
        ("boot_ns", ct.c_uint64),
        ("lease", ct.c_uint32),
        ("class_id", ct.c_uint16),
        ("kind", ct.c_uint8),
        ("type", ct.c_uint8),
        ("reason", ct.c_uint8),
        ("hook", ct.c_uint8),
        ("family", ct.c_uint8),
        ("wish", ct.c_uint8),
        ("pad2", ct.c_uint32),
    )


class Slot(ct.Structure):
    """struct odm_slot."""

    _fields_ = (("addr", Addr), ("lease", ct.c_uint32))


class Prefix(ct.Structure):
    """struct odm_prefix; `pool` is packed by `pack_pool`."""

    _fields_ = (
        ("type", ct.c_uint8),
        ("family", ct.c_uint8),
        ("spares", ct.c_uint16),
        ("ifindex", ct.c_uint32),
        ("mark", ct.c_uint32),
        ("configured_spares", ct.c_uint16),
        ("class_id", ct.c_uint16),
        ("pool", ct.c_uint64),
        ("fresh", ct.c_uint64 * 2),
        ("flags", ct.c_uint32),
        ("new_until_s", ct.c_uint32),
    )


class Choice(ct.Structure):
    """struct odm_choice."""

    _fields_ = (
        ("count", ct.c_uint32),
        ("prefix_ids", ct.c_uint32 * MAX_CHOICES),
        ("pad", ct.c_uint32),
    )


class Socket(ct.Structure):
    """struct odm_socket."""

    _fields_ = (
        ("version", ct.c_uint8),
        ("type", ct.c_uint8),
        ("flags", ct.c_uint16),
        ("class_id", ct.c_uint16),
        ("pad", ct.c_uint16),
        ("cgroup", ct.c_uint64),
        ("lock", ct.c_uint32),
        ("holds", ct.c_uint8),
        ("held_type", ct.c_uint8),
        ("held_class", ct.c_uint16),
        ("held", Addr),
        ("owner", ct.c_uint64),
        ("ticket", ct.c_uint64),
        ("seed", ct.c_uint32),
        ("turn", ct.c_uint32),
    )


class Census(ct.Structure):
    """struct odm_census."""

    _fields_ = (
        ("cookie", ct.c_uint64),
        ("type", ct.c_uint8),
        ("holds", ct.c_uint8),
        ("held_type", ct.c_uint8),
        ("pad", ct.c_uint8),
        ("held_class", ct.c_uint16),
        ("flags", ct.c_uint16),
        ("held", Addr),
        ("class_id", ct.c_uint16),
        ("room", ct.c_uint16 * 3),
    )


class VerdictCount(ct.Structure):
    """struct odm_verdict_key."""

    _fields_ = (
        ("class_id", ct.c_uint16),
        ("type", ct.c_uint8),
        ("verdict", ct.c_uint8),
        ("reason", ct.c_uint8),
        ("hook", ct.c_uint8),
        ("pad", ct.c_uint16),
    )


class DialogueKey(ct.Structure):
    """struct odm_dialogue_key."""

    _fields_ = (
        ("peer", Addr),
        ("peer_port", ct.c_uint16),
        ("port", ct.c_uint16),
        ("class_id", ct.c_uint16),
        ("protocol", ct.c_uint16),
    )


class Dialogue(ct.Structure):
    """struct odm_dialogue."""

    _fields_ = (
        ("addr", Addr),
        ("former", Addr),
        ("ours", ct.c_uint32),
        ("slot", ct.c_uint32),
    )


class DialogueSlot(ct.Structure):
    """struct odm_dialogue_slot."""

    _fields_ = (("lock", ct.c_uint32), ("key", DialogueKey))


class DialogueTurn(ct.Structure):
    """struct odm_dialogue_turn."""

    _fields_ = (("lock", ct.c_uint32), ("next", ct.c_uint32))


class NeedTurn(ct.Structure):
    """struct odm_need_turn."""

    _fields_ = (
        ("lock", ct.c_uint32),
        ("next", ct.c_uint32),
        ("told_ns", ct.c_uint64 * 16),
    )


class Outlook(ct.Structure):
    """struct odm_outlook."""

    _fields_ = (
        ("request", Request),
        ("addr", Addr),
        ("ticket", ct.c_uint64),
        ("state", ct.c_uint32),
        ("pad", ct.c_uint32),
    )


class Notice(ct.Structure):
    """struct odm_notice."""

    _fields_ = (
        ("value", ct.c_uint32),
        ("state", ct.c_uint8),
        ("type", ct.c_uint8),
        ("pad", ct.c_uint16),
        ("preferred_ns", ct.c_uint64),
        ("valid_ns", ct.c_uint64),
        ("addr", Addr),
        ("successor", Addr),
        ("room", ct.c_uint64 * 3),
    )


#: Each struct's name in C.
STRUCTS: Final[dict[str, type[ct.Structure]]] = {
    "odm_addr": Addr,
    "odm_identity": Identity,
    "odm_settings": Settings,
    "odm_class": Class,
    "odm_cap": Cap,
    "odm_limit": Limit,
    "odm_usage": Usage,
    "odm_turn": Turn,
    "odm_request": Request,
    "odm_socket_lifetime": SocketLifetime,
    "odm_live_key": LiveKey,
    "odm_census": Census,
    "odm_cgroup": Cgroup,
    "odm_bits": Bits,
    "odm_globs": Globs,
    "odm_step_key": StepKey,
    "odm_step": Step,
    "odm_folder_key": FolderKey,
    "odm_folder": Folder,
    "odm_birth": Birth,
    "odm_source": Source,
    "odm_span_key": SpanKey,
    "odm_prefix": Prefix,
    "odm_choice": Choice,
    "odm_socket": Socket,
    "odm_verdict_key": VerdictCount,
    "odm_dialogue_key": DialogueKey,
    "odm_dialogue": Dialogue,
    "odm_dialogue_slot": DialogueSlot,
    "odm_dialogue_turn": DialogueTurn,
    "odm_lease": Lease,
    "odm_meter": Meter,
    "odm_traffic": Traffic,
    "odm_event": Event,
    "odm_need_turn": NeedTurn,
    "odm_outlook": Outlook,
    "odm_notice": Notice,
    "odm_slot": Slot,
}


def pack_key(key: bytes) -> ct.Array[ct.c_uint64]:
    """A key of 16 bytes as the programs hold it; b"" is none."""
    return (ct.c_uint64 * 2).from_buffer_copy(key or bytes(16))


def pack_types(types: Collection[AddressType]) -> int:
    """Types as a row has them: bit N stands for type N."""
    return sum(1 << type_ for type_ in types)


def unpack_types(bits: int) -> frozenset[AddressType]:
    """The types of a row's bits."""
    return frozenset(type_ for type_ in TYPES if bits & 1 << type_)


def pack_addr(address: IPAddress) -> Addr:
    """The map form of an address."""
    raw = address.packed if isinstance(address, IPv6Address) else _mapped(address)
    return Addr.from_buffer_copy(raw)


def unpack_addr(addr: Addr) -> IPAddress:
    """The address of a map form; mapped ones become IPv4."""
    address = IPv6Address(bytes(addr))
    return address.ipv4_mapped or address


def pack_span(network: IPNetwork) -> SpanKey:
    """The trie key of a network."""
    length = network.prefixlen + (96 if isinstance(network, IPv4Network) else 0)
    return SpanKey(prefix_length=length, addr=pack_addr(network.network_address))


def unpack_span(key: SpanKey) -> IPNetwork:
    """The network of a trie key."""
    address = unpack_addr(key.addr)
    if isinstance(address, IPv4Address):
        return IPv4Network((address, key.prefix_length - 96))
    return IPv6Network((address, key.prefix_length))


class Ticket(NamedTuple):
    """What stands in a ticket (a row of odm_needs), beside its random half."""

    class_id: int
    type: AddressType
    family: Family
    turn: int
    on_net: bool
    fresh: bool


def unpack_ticket(ticket: int) -> Ticket | None:
    """What a number says, if it can be a ticket."""
    class_id, type_ = ticket >> NEED_CLASS_SHIFT, ticket >> NEED_TYPE_SHIFT & 7
    if not 0 < class_id < MAX_CLASSES or type_ not in TYPES:
        return None
    family = family_of(ticket >> NEED_FAMILY_SHIFT & 1)
    turn = ticket >> NEED_TURN_SHIFT & NEED_TURN_MASK
    wish = ticket >> NEED_WISH_SHIFT
    on_net, fresh = bool(wish & WISH_ON_NET), bool(wish & WISH_FRESH)
    return Ticket(class_id, AddressType(type_), family, turn, on_net, fresh)


def pack_pool(first: int, size: int, configured: int) -> int:
    """The one word that names a pool (ODM_POOL_*)."""
    return first | size << 32 | configured << 48


def unpack_pool(pool: int) -> tuple[int, int, int]:
    """(first, size, configured) of a pool word."""
    return pool & 0xFFFFFFFF, (pool >> 32) & 0xFFFF, pool >> 48


def usage_index(class_id: int, type_: AddressType) -> int:
    """The row of odm_caps and odm_usage for a class and type."""
    return class_id * len(AddressType) + int(type_)


def pack_choice_key(key: tuple[AddressType, Family]) -> int:
    """The row of odm_choices for a type and family."""
    type_, family = key
    return int(type_) * len(FamilyIndex) + family_index(family)


def unpack_choice_key(index: int) -> tuple[AddressType, Family]:
    """The type and family of a row of odm_choices."""
    type_, family = divmod(index, len(FamilyIndex))
    return AddressType(type_), family_of(family)


def _mapped(address: IPv4Address) -> bytes:
    return bytes(10) + b"\xff\xff" + address.packed
