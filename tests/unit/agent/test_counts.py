"""A wrong count is put right when it was found so again and again, and no other is touched."""

import random
from dataclasses import replace
from ipaddress import IPv6Address

from odm_agent.agent.counts import Counts
from odm_agent.core.model import AddressType, Family, IPAddress
from odm_agent.datapath.base import LiveKey, unconfigured
from odm_agent.datapath.census import CensusRow

FIXED, SESSION = AddressType.FIXED, AddressType.SESSION_LASTING
HERE, GONE = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")


def socket(cookie: int, class_id: int = 1, type: AddressType = FIXED) -> CensusRow:
    """A tracked socket that holds HERE."""
    row = LiveKey(HERE, class_id, type)
    return CensusRow(cookie, AddressType.UNSPECIFIED, True, HERE, class_id, type, row)


class Made:
    """Counts and sockets as the test makes them up."""

    def __init__(self, *sockets: CensusRow) -> None:
        self.sockets = list(sockets)
        self.rows: dict[tuple[int, AddressType], int] = {}
        self.keys: dict[LiveKey, int] = {}

    def usage(self) -> dict[tuple[int, AddressType], int]:
        return dict(self.rows)

    def live(self) -> dict[LiveKey, int]:
        return dict(self.keys)

    def census(self) -> list[CensusRow]:
        return list(self.sockets)

    def correct_usage(self, class_id: int, type_: AddressType, live: int) -> None:
        self.rows[class_id, type_] = live

    def correct_live(self, key: LiveKey, live: int) -> None:
        if live:
            self.keys[key] = live
        else:
            del self.keys[key]


def key(address: IPAddress = HERE, class_id: int = 1) -> LiveKey:
    return LiveKey(address, class_id, FIXED)


def test_right_counts_are_left_alone() -> None:
    made = Made(socket(1), socket(2), CensusRow(3, FIXED, True), CensusRow(4, SESSION, False))
    made.rows, made.keys = {(1, FIXED): 2}, {key(): 2}
    counts = Counts(made)
    for _ in range(3):
        counts.correct([HERE])
    assert (made.rows, made.keys, counts.corrected) == ({(1, FIXED): 2}, {key(): 2}, 0)


def test_too_many_and_too_few_are_put_right_after_five_calls() -> None:
    made = Made(socket(1), socket(2, class_id=2))
    made.rows, made.keys = {(1, FIXED): 5}, {key(): 1}
    counts = Counts(made)
    for _ in range(4):
        counts.correct([HERE])
    assert made.rows == {(1, FIXED): 5}
    counts.correct([HERE])
    assert made.rows == {(1, FIXED): 1, (2, FIXED): 1}
    assert made.keys == {key(): 1, key(class_id=2): 1}
    assert counts.corrected == 3
    counts.correct([HERE])
    assert counts.corrected == 3


def test_calls_that_find_other_numbers_begin_anew() -> None:
    made = Made()
    counts = Counts(made)
    for number in (5, 5, 5, 5, 4, 5, 5, 5, 5):
        made.rows = {(1, FIXED): number}
        counts.correct([HERE])
    assert counts.corrected == 0
    made.rows = {}
    counts.correct([HERE])
    made.rows = {(1, FIXED): 5}
    for _ in range(4):
        counts.correct([HERE])
    assert counts.corrected == 0
    counts.correct([HERE])
    assert (made.rows, counts.corrected) == ({(1, FIXED): 0}, 1)


def test_what_moves_between_two_looks_is_not_wrong() -> None:
    made = Made()
    counts = Counts(made)
    for count in range(1, 6):  # counted before the census sees it, each time another
        made.rows, made.keys = {(1, FIXED): count}, {key(): count}
        made.sockets = [socket(n) for n in range(count - 1)]
        counts.correct([HERE])
    assert counts.corrected == 0


class Busy(Made):
    """One socket at a time: at each look the census may just see it, or the counts may."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = random.Random(8653)

    def usage(self) -> dict[tuple[int, AddressType], int]:
        return {(1, FIXED): self.draw.randrange(2)}

    def live(self) -> dict[LiveKey, int]:
        return {key(): self.draw.randrange(2)}

    def census(self) -> list[CensusRow]:
        return [socket(1)] * self.draw.randrange(2)

    def correct_usage(self, class_id: int, type_: AddressType, live: int) -> None:
        raise AssertionError("it was right")

    def correct_live(self, key: LiveKey, live: int) -> None:
        raise AssertionError("it was right")


def test_small_counts_that_move_all_the_time_are_not_wrong() -> None:
    """Of two numbers, each 0 or 1, the same two come again and again."""
    counts = Counts(Busy())
    for _ in range(10_000):
        counts.correct([HERE])


def test_rows_of_addresses_that_are_gone_are_forgotten_at_the_second_call() -> None:
    """A hook may still be at work that found the address configured just before it went."""
    made = Made()
    made.keys = {key(): 0, key(GONE): 0}
    counts = Counts(made)
    counts.correct([HERE])
    assert made.keys == {key(): 0, key(GONE): 0}
    counts.correct([HERE])
    assert made.keys == {key(): 0}


def test_an_address_that_came_back_is_not_forgotten() -> None:
    made = Made()
    made.keys = {key(GONE): 0}
    counts = Counts(made)
    for configured in ([HERE], [HERE, GONE], [HERE]):
        counts.correct(configured)
    assert made.keys == {key(GONE): 0}


def test_the_row_of_all_that_is_not_configured_stays() -> None:
    made = Made()
    made.keys = {key(unconfigured(Family.IPV6)): 0}
    counts = Counts(made)
    for _ in range(3):
        counts.correct([HERE])
    assert made.keys == {key(unconfigured(Family.IPV6)): 0}


def test_each_socket_is_looked_for_in_the_row_that_its_notes_name() -> None:
    """One by an address that is not configured, and one that found the map full."""
    together = key(unconfigured(Family.IPV6))
    made = Made(replace(socket(1), row=together), replace(socket(2), row=None))
    made.rows, made.keys = {(1, FIXED): 2}, {together: 1}
    counts = Counts(made)
    for _ in range(6):
        counts.correct([HERE])
    assert (made.keys, counts.corrected) == ({together: 1}, 0)
