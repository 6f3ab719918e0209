"""A look that is interrupted is made again at once, and with what it was to tell."""

from odm_agent.core.clock import Moment
from odm_agent.core.effects import Look
from odm_agent.core.events import Dirty, Interrupted, Offered
from odm_agent.core.looking import MOST_INTERRUPTIONS, RESYNC_S, Looking

NOW = Moment(100.0, 1_700_000_000.0)
FRESH = Looking(NOW.boot_s, NOW.boot_s + RESYNC_S, Dirty.KERNEL)
LINGERING, WATCHED = frozenset({7}), frozenset({3})


def _look(looking: Looking, *, turned: bool = False) -> tuple[Looking, Look]:
    after, [look] = looking.at(frozenset(), LINGERING, WATCHED, turned, NOW)
    assert isinstance(look, Look)
    return after, look


def test_what_was_dirty_is_looked_at_again_at_once() -> None:
    looking, look = _look(FRESH)
    again = looking.touched(Dirty.CGROUPS, NOW).interrupted(look.interrupted, NOW)
    assert again.due_s <= NOW.boot_s
    assert _look(again)[1].dirty == Dirty.KERNEL | Dirty.CGROUPS


def test_what_was_to_be_told_is_told_by_the_next_one_alone() -> None:
    looking, look = _look(FRESH, turned=True)
    assert (look.ended_leases, look.watched) == (LINGERING, WATCHED)
    looking, look = _look(looking.interrupted(look.interrupted, NOW))
    assert (look.ended_leases, look.watched) == (LINGERING, WATCHED)
    _, look = _look(looking.touched(Dirty.KERNEL, NOW, 0.0))
    assert not look.ended_leases and not look.watched


def test_so_many_in_a_row_are_interrupted_and_no_more() -> None:
    looking = FRESH
    for _ in range(MOST_INTERRUPTIONS):
        looking, look = _look(looking)
        assert not look.whole
        looking = looking.interrupted(Interrupted(look.dirty), NOW)
    looking, look = _look(looking)
    assert look.whole
    looking, _ = looking.offered(Offered(finished=True), NOW)
    assert not _look(looking.touched(Dirty.KERNEL, NOW, 0.0))[1].whole
