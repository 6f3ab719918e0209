"""The option with arbitrary values on all kinds of sockets: as documented, or as on a stock host.

Each operation is done on one of our sockets and, as far as docs/api.md leaves it to the kernel, on
a twin that no program sees.
"""

import ctypes
import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from odm_agent.core.model import TYPES, AddressType
from odm_agent.datapath import abi
from tests.hardening.twins import Twin, beside_twin, libc
from tests.lab.client import IPV6_ADDR_PREFERENCES
from tests.lab.host import NONPERSISTENT
from tests.lab.peer import IPPROTO_MPTCP
from tests.lab.world import PLAIN, World

_BOUNDED: Final = settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_V4, _V6 = socket.AF_INET, socket.AF_INET6
_STREAM, _DGRAM, _RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
_UDPLITE: Final = 136

Kind = tuple[int, int, int]
#: name -> (socket, has the kernel the option there); those that types are for.
SERVED: Final[dict[str, tuple[Kind, bool]]] = {
    "tcp6": ((_V6, _STREAM, 0), True),
    "tcp4": ((_V4, _STREAM, 0), False),
    "udp6": ((_V6, _DGRAM, 0), True),
    "udp4": ((_V4, _DGRAM, 0), False),
    "mptcp6": ((_V6, _STREAM, IPPROTO_MPTCP), False),
    "mptcp4": ((_V4, _STREAM, IPPROTO_MPTCP), False),
}
#: Those that are left to the kernel.
OTHERS: Final[dict[str, Kind]] = {
    "udplite6": (_V6, _DGRAM, _UDPLITE),
    "udplite4": (_V4, _DGRAM, _UDPLITE),
    "raw6": (_V6, _RAW, 200),
    "raw4": (_V4, _RAW, 200),
    "icmp6": (_V6, _RAW, socket.IPPROTO_ICMPV6),
    "unix": (socket.AF_UNIX, _STREAM, 0),
    "unixgram": (socket.AF_UNIX, _DGRAM, 0),
    "netlink": (socket.AF_NETLINK, _RAW, 0),
    "packet": (socket.AF_PACKET, _DGRAM, 0),
}


@dataclass(frozen=True)
class Set:
    """setsockopt with these bytes, repeated up to `length` if that is more."""

    value: bytes
    length: int

    @property
    def bytes(self) -> bytes:
        """What is set."""
        return self.value[: self.length].ljust(self.length, b"\xff")

    @property
    def number(self) -> int:
        """The option's value: the first four bytes."""
        return int.from_bytes(self.bytes[:4], "little")


@dataclass(frozen=True)
class Get:
    """getsockopt with room for `length` bytes."""

    length: int


Operation = Set | Get
#: (errno or 0, what was read)
Outcome = tuple[int, bytes]
Question = tuple[Kind, tuple[Operation, ...]]


def perform(question: Question) -> list[Outcome]:
    """Do all on one new socket."""
    kind, operations = question
    try:
        sock = socket.socket(*kind)
    except OSError as error:
        return [(error.errno or -1, b"")] * len(operations)
    with sock:
        return [_do(sock.fileno(), each) for each in operations]


def _do(fd: int, operation: Operation) -> Outcome:
    if isinstance(operation, Set):
        failed = libc.setsockopt(
            fd, socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, operation.bytes, operation.length
        )
        return (ctypes.get_errno() if failed else 0, b"")
    room = ctypes.create_string_buffer(b"\xaa" * max(operation.length, 1), max(operation.length, 1))
    length = ctypes.c_uint32(operation.length)
    failed = libc.getsockopt(
        fd, socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, room, ctypes.byref(length)
    )
    return (ctypes.get_errno(), b"") if failed else (0, room.raw[: length.value])


# --- the model ------------------------------------------------------------------------------------


@dataclass
class Model:
    """docs/api.md for one socket, and what of each operation is the kernel's."""

    allow: frozenset[AddressType]
    refuses: bool
    kernel_has_option: bool
    type: int = 0

    def expect(self, operation: Operation) -> tuple[Operation | None, Outcome | None]:
        """(what the twin is to do, what must come out whatever the twin says)."""
        if isinstance(operation, Get):
            return self._get(operation)
        if operation.length < 4:
            return operation, None
        number = operation.number
        if not number & 0x1F0000:
            return self._without_type(operation, number)
        if error := self._refusal(number):
            return None, (error, b"")
        if number >> 16 & 7 not in self.allow:
            return operation, None  # audit: nobody heard it
        self.type = number >> 16 & 7
        flags = number & 0xFFFF
        if flags and self.kernel_has_option:
            return Set(flags.to_bytes(4, "little"), 4), (0, b"")
        return None, (0, b"")

    def _get(self, operation: Get) -> tuple[Operation | None, Outcome | None]:
        if self.type and operation.length >= 4 and not self.kernel_has_option:
            return None, (0, (self.type << 16).to_bytes(4, "little"))
        return operation, None

    def _without_type(self, operation: Set, number: int) -> tuple[Operation | None, Outcome | None]:
        if number == 0 and self.type:
            self.type = 0
            return (operation, None) if self.kernel_has_option else (None, (0, b""))
        return operation, None

    def _refusal(self, number: int) -> int:
        type_ = number >> 16 & 7
        if type_ > 4 or number & 0x180000 or (type_ and number & 0xFFE00000):
            return errno.EINVAL
        groups = (number & 0x0103, number & 0x0404, number & 0x0808)
        if any(group & (group - 1) for group in groups):
            return errno.EINVAL
        if type_ not in self.allow and self.refuses:
            return errno.EACCES
        return 0

    def read(self, operation: Operation, stock: Outcome) -> Outcome:
        """What the twin read, with our type in it."""
        code, data = stock
        if isinstance(operation, Set) or code or not self.type or len(data) < 4:
            return stock
        return code, data[:2] + bytes([data[2] | self.type]) + data[3:]


# --- what is drawn --------------------------------------------------------------------------------

_FIELDS: Final = st.one_of(
    st.integers(0, 4).map(lambda type_: type_ << 16),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1 << 19, 1 << 20, 1 << 21, 1 << 31, 7 << 16, 0xFFFFFFFF, 0x1F0000]),
)
_FLAGS: Final = st.sampled_from([0, 0, 1, 2, 4, 0x100, 0x400, 0x800, 8, 3, 0x404, 0x808, 0x1000])
_NUMBERS: Final = st.builds(lambda field, flags: field | flags, _FIELDS, _FLAGS)
#: But those that have to do with lifetimes (tests/rfc8653/test_own_lifetimes.py).
_LENGTHS: Final = st.one_of(
    st.just(4),
    st.just(4),
    st.integers(0, 16),
    st.sampled_from([4095, 4096, 4097, 8192, 65536]),
    st.integers(0, 70000),
).filter(lambda length: length not in (abi.REQUEST_SIZE, ctypes.sizeof(abi.Request)))
_OPERATIONS: Final = st.one_of(
    st.builds(Set, _NUMBERS.map(lambda n: n.to_bytes(4, "little")), _LENGTHS),
    st.builds(Set, st.binary(max_size=8), _LENGTHS),
    st.builds(Get, _LENGTHS),
)
#: After each what is read back tells the whole state.
_SEQUENCES: Final = st.lists(_OPERATIONS, min_size=1, max_size=5).map(
    lambda each: tuple(x for operation in each for x in (operation, Get(4)))
)
_PLACES: Final[dict[str, tuple[frozenset[AddressType], bool]]] = {
    "every": (frozenset(TYPES), True),
    "nothing": (frozenset(), True),
    PLAIN: (frozenset(), True),
    "off": (frozenset(), True),
    "audited": (frozenset({NONPERSISTENT}), False),
}


def _set(number: int, length: int = 4) -> Set:
    return Set(number.to_bytes(4, "little"), length)


def _check(
    stock: Twin[Question, list[Outcome]],
    kind: Kind,
    model: Model,
    operations: Sequence[Operation],
) -> None:
    expected: list[tuple[Operation | None, Outcome | None, int]] = []
    for each in operations:
        asked, must = model.expect(each)
        expected.append((asked, must, model.type))
    left_to_it = tuple(asked for asked, _, _ in expected if asked is not None)
    answers = iter(stock.ask((kind, left_to_it)))
    ours = perform((kind, tuple(operations)))
    for operation, (asked, must, type_), got in zip(operations, expected, ours, strict=True):
        model.type = type_
        said = next(answers) if asked is not None else None
        if must is None:
            assert said is not None
            must = model.read(operation, said)
        elif said is not None:
            assert said == must, "the model is wrong about the kernel"
        assert got == must, (operation, got, must)


@pytest.mark.parametrize("name", _PLACES)
def test_S2_option_is_as_documented_or_as_on_a_stock_host(world: World, name: str) -> None:
    allow, refuses = _PLACES[name]

    def body(stock: Twin[Question, list[Outcome]]) -> None:
        @_BOUNDED
        @given(st.sampled_from(sorted(SERVED)), _SEQUENCES)
        @example("tcp6", (_set(0x10002, 70000), Get(4), Get(70000)))
        @example("tcp6", (_set(0x10000, 4097), Get(4), _set(0), Get(4)))
        @example("udp4", (_set(0x20000), Get(4), Get(5), Get(3), _set(0, 70000), Get(4)))
        @example("mptcp6", (_set(0x20001), Get(4), _set(2), Get(4)))
        def run(served: str, operations: tuple[Operation, ...]) -> None:
            kind, has_option = SERVED[served]
            _check(stock, kind, Model(allow, refuses, has_option), operations)

        run()

    beside_twin(world.place(name), perform, body)


@pytest.mark.parametrize("name", ["every", PLAIN])
def test_S6_other_kinds_of_sockets_are_left_to_the_kernel(world: World, name: str) -> None:
    def body(stock: Twin[Question, list[Outcome]]) -> None:
        @_BOUNDED
        @given(st.sampled_from(sorted(OTHERS)), _SEQUENCES)
        def run(other: str, operations: tuple[Operation, ...]) -> None:
            question = (OTHERS[other], operations)
            assert perform(question) == stock.ask(question)

        run()

    beside_twin(world.place(name), perform, body)
