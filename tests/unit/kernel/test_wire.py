"""The packing for sock_diag, against bytes written out by hand and against itself."""

import struct
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import NLA_F_NESTED

from odm_agent.core.errors import KernelError
from odm_agent.kernel import wire


def test_an_attribute_is_padded_but_its_length_is_not() -> None:
    packed = wire.attribute(3, b"lo\0")
    assert packed == struct.pack("=HH", 7, 3) + b"lo\0\0"


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40))))
def test_attributes_come_back_in_order(pairs: list[tuple[int, bytes]]) -> None:
    packed = b"".join(wire.attribute(kind, payload) for kind, payload in pairs)
    assert list(wire.attribute_list(packed)) == pairs
    assert wire.attributes(packed) == dict(pairs)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_apart_without_end_or_error(data: bytes) -> None:
    assert len(list(wire.attribute_list(data))) <= len(data) // 4


def test_the_nested_flag_is_no_part_of_the_type() -> None:
    assert wire.attributes(wire.attribute(5 | NLA_F_NESTED, b"1234")) == {5: b"1234"}


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_numbers_of_all_sizes(size: int) -> None:
    assert wire.number((77).to_bytes(size, sys.byteorder)) == 77
    assert wire.number(None, absent=9) == 9


def _list(opened: wire.Wire) -> None:
    opened.dump(b"")


def _end(opened: wire.Wire) -> None:
    opened.tell(21, b"", "ending the sockets of 192.0.2.7", "Nothing leaves from there.")


ASKED = [
    (_list, r"^listing sockets: {}\. Nothing was changed; try again\.$"),
    (_end, r"^ending the sockets of 192\.0\.2\.7: {}\. Nothing leaves from there\.$"),
]


@pytest.mark.parametrize(("ask", "said"), ASKED)
def test_what_could_not_be_sent_is_said_by_what_was_asked(
    ask: Callable[[wire.Wire], None], said: str
) -> None:
    opened = wire.Wire()
    opened.close()
    with pytest.raises(KernelError, match=said.format("Bad file descriptor")):
        ask(opened)


@pytest.mark.parametrize(("ask", "said"), ASKED)
def test_what_was_not_answered_is_said_by_what_was_asked(
    ask: Callable[[wire.Wire], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_TIMEOUT_S", 0.01)
    monkeypatch.setattr(wire.Wire, "_send", lambda *_: None)  # so there is no answer
    with wire.Wire() as opened, pytest.raises(KernelError, match=said.format("timed out")):
        ask(opened)
