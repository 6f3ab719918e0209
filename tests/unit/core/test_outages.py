"""When a handover begins, when it is over and how, in virtual time."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from odm_agent.core import trace
from odm_agent.core.model import AddressType, Family
from odm_agent.core.outages import (
    BUCKETS_S,
    PATIENCE_S,
    Begun,
    Fate,
    Outage,
    Outages,
    Outcome,
    Over,
    Seen,
    Tally,
    Way,
)

WANT: Final = (AddressType.FIXED, Family.IPV6)
GATEWAY, OTHER_GATEWAY = IPv6Address("fe80::1"), IPv6Address("fe80::2")
HERE: Final = Way(3, "isp/fixed", IPv6Network("2001:db8:1::/64"), "w0", GATEWAY)
THERE: Final = replace(HERE, interface="w1", gateway=OTHER_GATEWAY)
OTHER: Final = Way(4, "isp/fixed", IPv6Network("2001:db8:2::/64"), "w1", OTHER_GATEWAY)
LOST: Final = {3: "w0 has no carrier"}


def serving(*ways: Way) -> Seen:
    return Seen({WANT: ways}, held=frozenset((WANT,)))


def lost(*, held: bool = True) -> Seen:
    return Seen({}, LOST, frozenset((WANT,)) if held else frozenset())


class Clock:
    """Shows looks, each of which takes a tenth of a second, and keeps what was told."""

    def __init__(self) -> None:
        self.outages = Outages()
        self.told: list[Begun | Over] = []

    def look(self, at_s: float, seen: Seen, served_s: float | None = None) -> None:
        served = {} if served_s is None else {WANT: served_s}
        self.outages, told = self.outages.seen(seen, at_s, served, at_s + 0.1)
        self.told += told

    def ended(self) -> Over:
        """How the one handover ended that there was, which was told when it began."""
        begun, over = self.told
        assert isinstance(begun, Begun) and isinstance(over, Over)
        assert not self.outages.open
        return over


def test_T1_a_kept_prefix_serves_again_by_another_interface() -> None:
    clock = Clock()
    clock.look(1.0, serving(HERE))
    clock.look(2.0, lost())
    clock.look(2.5, serving(THERE), served_s=2.52)
    over = clock.ended()
    assert over.outcome is Outcome.KEPT
    assert abs(over.took_s - 0.52) < 1e-9
    assert (over.outage.left, over.outage.why) == (HERE, LOST[3])


def test_T3_another_prefix_takes_its_place() -> None:
    clock = Clock()
    clock.look(1.0, serving(HERE))
    clock.look(2.0, lost(held=False))
    clock.look(2.0 + PATIENCE_S - 1, serving(OTHER))
    assert clock.ended().outcome is Outcome.REPLACED


def test_what_was_ready_beside_it_serves_from_the_same_look_on() -> None:
    clock = Clock()
    clock.look(1.0, serving(HERE, OTHER))
    clock.look(2.0, replace(serving(OTHER), lost=LOST), served_s=2.01)
    over = clock.ended()
    assert over.outcome is Outcome.REPLACED
    assert abs(over.took_s - 0.01) < 1e-9


def test_a_link_that_flaps_moves_nothing() -> None:
    clock = Clock()
    for at_s, seen in ((1.0, serving(HERE)), (2.0, lost()), (3.0, serving(HERE))):
        clock.look(at_s, seen)
    assert clock.ended().outcome is Outcome.RETURNED


def test_the_same_interface_at_another_gateway_is_another_place() -> None:
    clock = Clock()
    clock.look(1.0, serving(HERE))
    clock.look(2.0, lost())
    clock.look(3.0, serving(replace(HERE, gateway=OTHER_GATEWAY)))
    assert clock.ended().outcome is Outcome.KEPT


def test_a_gateway_that_is_replaced_is_no_handover() -> None:
    clock = Clock()
    clock.look(1.0, serving(HERE))
    clock.look(2.0, serving(replace(HERE, gateway=OTHER_GATEWAY)))
    assert not clock.told


def test_a_type_of_which_nothing_is_held_is_given_up_after_a_while() -> None:
    clock = Clock()
    clock.look(1.0, serving(HERE))
    clock.look(2.0, lost())
    clock.look(500.0, lost())
    assert len(clock.told) == 1, "a prefix that waits for a network is waited for"
    clock.look(600.0, Seen())
    clock.look(600.0 + PATIENCE_S, Seen())
    assert clock.ended().outcome is Outcome.GIVEN_UP
    clock.look(5000.0, serving(OTHER))
    assert len(clock.told) == 2, "what is asked for later is no handover"


def test_a_handover_in_the_middle_of_another_belongs_to_it() -> None:
    clock = Clock()
    clock.look(1.0, serving(HERE))
    clock.look(2.0, lost())
    clock.look(3.0, Seen({}, {**LOST, 4: "w1 has no carrier"}, frozenset((WANT,))))
    clock.look(4.0, serving(HERE))
    assert clock.ended().took_s > 2.0


def test_what_ends_otherwise_is_no_handover() -> None:
    """Its time is over, it was given back, or the configuration names it no more."""
    clock = Clock()
    clock.look(1.0, serving(HERE))
    clock.look(2.0, Seen())
    clock.look(3.0, serving(OTHER))
    clock.look(4.0, serving(replace(OTHER, prefix_id=5), OTHER))
    clock.look(5.0, serving(OTHER))
    assert not clock.told


def test_an_uplink_whose_other_interface_takes_over_has_moved() -> None:
    clock = Clock()
    clock.look(1.0, serving(HERE))
    clock.look(2.0, serving(replace(OTHER, prefix_id=3)))
    over = clock.ended()
    assert over.outcome is Outcome.REPLACED
    assert "w1 serves in its place" in over.outage.why


def test_the_next_agent_goes_on_with_it() -> None:
    clock = Clock()
    clock.look(1.0, serving(HERE))
    clock.look(2.0, lost())
    clock.outages = trace.value_of(trace.spelled(clock.outages))
    clock.look(9.0, lost())
    clock.look(10.0, serving(THERE), served_s=10.0)
    assert clock.ended().took_s == 8.0


def over(took_s: float, successor: Way | None = THERE) -> Over:
    return Over(WANT, Outage(HERE, 1.0, ""), successor, took_s)


def test_a_tally_counts_outcomes_outages_and_sockets_and_survives_the_journal() -> None:
    tally = Tally()
    for each in (over(BUCKETS_S[0]), over(1e9), over(5.0, None), over(0.3, HERE)):
        tally = tally.with_over(each)
    fixed = AddressType.FIXED
    tally = tally.with_sockets(fixed, Fate.MOVED, 2).with_sockets(fixed, Fate.LOST, 0)
    assert tally.outcomes == {
        (fixed, Outcome.KEPT): 2,
        (fixed, Outcome.GIVEN_UP): 1,
        (fixed, Outcome.RETURNED): 1,
    }
    assert tally.outages[fixed][0] == tally.outages[fixed][-1] == 1
    assert sum(tally.outages[fixed]) == 3, "one that is given up has no outage"
    assert tally.sums_s[fixed] == BUCKETS_S[0] + 1e9 + 0.3
    assert tally.sockets == {(fixed, Fate.MOVED): 2}
    assert trace.value_of(trace.spelled(tally)) == tally and tally.is_sound
    assert not replace(tally, outages={fixed: (1,)}).is_sound
