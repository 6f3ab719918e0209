"""What the kernel tells of addresses, and what of it is news."""

import struct

import pytest

from odm_agent.kernel.watch import Renewals
from odm_agent.kernel.wire import attribute, u32

_NEW, _DEL, _ROUTE = 20, 21, 24
_ADDRESS, _CACHEINFO, _FLAGS = 1, 6, 8


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def told(last: int, lifetime_s: int = 100, *, flags: int = 0, kind: int = _NEW) -> bytes:
    return message(
        kind,
        struct.pack("=BBBBI", 10, 64, 0, 0, 2)
        + attribute(_ADDRESS, bytes(15) + bytes([last]))
        + attribute(_CACHEINFO, struct.pack("=4I", lifetime_s, lifetime_s, 0, 0))
        + u32(_FLAGS, flags),
    )


def test_the_same_address_with_another_lifetime_is_no_news() -> None:
    renewals = Renewals()
    assert not renewals.are_all(told(1))
    assert renewals.are_all(told(1, 200))
    assert not renewals.are_all(told(1, 200, flags=0x20))
    assert renewals.are_all(told(1, 300, flags=0x20))


def test_one_that_was_removed_is_news_when_it_returns() -> None:
    renewals = Renewals()
    renewals.are_all(told(1))
    assert not renewals.are_all(told(1, kind=_DEL))
    assert not renewals.are_all(told(1))


def test_one_piece_of_news_among_several_messages_is_enough() -> None:
    renewals = Renewals()
    renewals.are_all(told(1) + told(2))
    assert renewals.are_all(told(1) + told(2))
    assert not renewals.are_all(told(1) + told(3) + told(2))
    assert not renewals.are_all(told(1) + message(_ROUTE, bytes(12)))


def test_after_a_loss_all_is_news() -> None:
    renewals = Renewals()
    renewals.are_all(told(1))
    renewals.forget()
    assert not renewals.are_all(told(1))


@pytest.mark.parametrize("data", [bytes(16), message(_NEW, bytes(3)), told(1)[:20] + b"\0" * 9])
def test_what_is_cut_is_news(data: bytes) -> None:
    assert not Renewals().are_all(data)


def test_what_is_known_is_bounded() -> None:
    renewals = Renewals()
    for number in range(5000):
        body = struct.pack("=BBBBI", 2, 32, 0, 0, number) + attribute(_ADDRESS, bytes(4))
        renewals.are_all(message(_NEW, body))
    assert sum(map(len, renewals._told.values())) <= 4096


def announced(last: int, born: int, renewed: int) -> bytes:
    """An address out of a prefix of its own."""
    return message(
        _NEW,
        struct.pack("=BBBBI", 10, 64, 0, 0, 2)
        + attribute(_ADDRESS, bytes([0x20, 1, 13, 0xB8, 0, last]) + bytes(9) + b"\1")
        + attribute(_CACHEINFO, struct.pack("=4I", 100, 100, born, renewed))
        + u32(_FLAGS, 0),
    )


def test_a_renewal_that_leaves_another_prefix_out_is_news_once() -> None:
    renewals = Renewals()
    renewals.are_all(announced(1, 1_000, 5_000) + announced(2, 5_005, 5_005))
    assert not renewals.are_all(announced(2, 5_005, 5_500)), "the first is forgotten"
    assert renewals.are_all(announced(2, 5_005, 6_000))
    assert not renewals.are_all(announced(1, 1_000, 6_100)), "and known again"
    assert renewals.are_all(announced(2, 5_005, 6_500))
    assert renewals.are_all(announced(1, 1_000, 6_600))


def test_two_prefixes_that_are_renewed_in_turn_are_no_news() -> None:
    renewals = Renewals()
    renewals.are_all(announced(1, 1_000, 1_000) + announced(2, 1_001, 1_001))
    for at in range(1_300, 9_000, 300):
        assert renewals.are_all(announced(1, 1_000, at)) or at == 1_300
        assert renewals.are_all(announced(2, 1_001, at + 1)) or at == 1_300
