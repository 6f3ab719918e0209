"""Totals of what was sent, by hours and days."""

from contextlib import closing
from pathlib import Path

from odm_agent.journal import Journal, Owner
from tests.unit.journal.doubles import open_journal

HOUR_S, DAY_S = 3600, 86400
#: The beginning of a day.
DAY = 20_000 * DAY_S


def test_totals_add_up_by_hour_class_and_type(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        for hour in (DAY, DAY, DAY + HOUR_S):
            journal.add_sent(hour, {("ssh", 1): (100, 1), ("web", 3): (7, 1)}, {}, {})
        assert journal.sent(DAY) == {("ssh", 1): (300, 3), ("web", 3): (21, 3)}
        assert journal.sent(DAY + 1) == {("ssh", 1): (100, 1), ("web", 3): (7, 1)}
    with open_journal(tmp_path) as journal:
        assert journal.sent(DAY + HOUR_S) == {("ssh", 1): (100, 1), ("web", 3): (7, 1)}


def test_old_totals_are_kept_by_the_day_and_no_longer_than_thirteen_months(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        for hour in range(420 * 24):
            journal.add_sent(DAY + hour * HOUR_S, {("ssh", 1): (1, 1)}, {}, {})
        last = DAY + 420 * DAY_S - HOUR_S
        (rows,) = journal._db.execute("SELECT COUNT(*) FROM sent").fetchone()
        assert rows == 400 + 8 * 24
        kept, _ = journal.sent(0)["ssh", 1]
        assert 400 * 24 < kept < 410 * 24, "summed up, not dropped"
        assert journal.sent(last - 5 * DAY_S)["ssh", 1] == (5 * 24 + 1, 5 * 24 + 1)


def test_a_clock_that_is_set_far_ahead_for_a_while_costs_no_totals(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.add_sent(DAY, {("ssh", 1): (100, 1)}, {}, {})
        journal.add_sent(DAY + 9000 * DAY_S, {("ssh", 1): (1, 1)}, {}, {})
        journal.add_sent(DAY, {("ssh", 1): (100, 1)}, {}, {})
        assert journal.sent(DAY)["ssh", 1] == (201, 3)


def test_counters_of_another_boot_are_not_told(tmp_path: Path) -> None:
    path, owner = tmp_path / "state.db", Owner("b1", 1, "/p")
    with closing(Journal(path, owner)) as journal:
        journal.add_sent(DAY, {}, {(1, 1): (100, 1)}, {12: (5, 1)})
        assert journal.recorded() == {(1, 1): (100, 1)}
    with closing(Journal(path, owner._replace(boot="b2"))) as journal:
        assert journal.recorded() == {}
        assert journal.meters() == {12: (5, 1)}, "a budget outlasts a boot"
