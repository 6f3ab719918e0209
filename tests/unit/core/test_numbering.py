import pytest

from odm_agent.core.numbering import QUARANTINE_S, Ledger, NoNumberError


def test_a_name_keeps_its_number_and_a_new_one_gets_the_lowest_that_is_free() -> None:
    ledger = Ledger("class", 9, {"a": 1, "b": 3})
    assert ledger.using("b").given == {"a": 1, "b": 3}
    assert ledger.using("c").using("d").given == {"a": 1, "b": 3, "c": 2, "d": 4}
    assert ledger.using("c").used == {"c"}


def test_a_number_is_due_when_it_was_not_carried_for_a_whole_quarantine() -> None:
    ledger = Ledger("class", 9, {"a": 1, "b": 2, "c": 3}, frozenset({"c"}))
    ledger = ledger.surveyed({1}, 1000.0)
    assert ledger.due(1000.0 + QUARANTINE_S - 0.1) == {}
    assert ledger.due(1000.0 + QUARANTINE_S) == {"b": 2}, "a was carried, c is in use"
    ledger = ledger.surveyed({2}, 1100.0)  # now carried again: it begins anew
    ledger = ledger.surveyed(set(), 1200.0)
    assert ledger.due(1100.0 + QUARANTINE_S) == {"a": 1}
    assert ledger.due(1200.0 + QUARANTINE_S) == {"a": 1, "b": 2}
    assert ledger.without(["a"]).given == {"b": 2, "c": 3}


def test_a_name_that_was_in_use_again_waits_for_a_whole_quarantine() -> None:
    ledger = Ledger("class", 9, {"a": 1}).surveyed(set(), 0.0).using("a")
    ledger = ledger.of(ledger.given, frozenset())
    assert ledger.due(QUARANTINE_S) == {}
    assert ledger.surveyed(set(), 50.0).due(QUARANTINE_S) == {}


def test_when_all_are_taken_it_is_said_how_many_will_be_free() -> None:
    ledger = Ledger("prefix", 3, {"a": 1, "b": 2, "c": 3}, frozenset({"c"}))
    assert ledger.using("a").given["a"] == 1
    with pytest.raises(NoNumberError, match=r"prefix 'd': there are 3, of which 2 .*5 minutes"):
        ledger.using("d")


def test_a_number_from_a_wider_mark_is_refused() -> None:
    with pytest.raises(NoNumberError, match=r"'a' has the number 16, .*for 15: widen"):
        Ledger("prefix", 15, {"a": 16}).using("a")
