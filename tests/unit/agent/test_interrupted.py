"""Passes of the engine that give way, and those that go on where one did."""

from collections.abc import Callable

from odm_agent.core import tables
from odm_agent.core.actions import KernelAction, RemoveRule
from odm_agent.core.errors import KernelError
from odm_agent.prefixes.table import PrefixTable
from tests.unit.agent.test_engine import HOME6, engine, looks


def _nth(which: int) -> Callable[[], bool]:
    """True when it is asked for the nth time."""
    asked = 0

    def gives_way() -> bool:
        nonlocal asked
        asked += 1
        return asked == which

    return gives_way


def _nobody() -> None:
    """Nobody waits."""


def test_before_anything_is_done_it_does_nothing_and_the_next_one_does_not_read_again() -> None:
    for which in (1, 2):  # when it was read, and when it is planned
        made, kernel, maps = engine(HOME6)
        seen = looks(made, kernel)
        assert not made.converge(_nobody, _nth(which))
        assert made.interrupted and not kernel.addresses and not maps.read().prefixes
        made.has_news = lambda: False
        seen.clear()
        assert made.converge() and not made.interrupted
        assert seen == ["addresses", "read"], "when they are ready, and in the end"
        assert maps.read().choices and made.is_at_rest


def test_with_news_the_next_one_reads_again() -> None:
    made, kernel, _ = engine(HOME6)
    made.converge(_nobody, _nth(1))
    seen = looks(made, kernel)
    made.has_news = lambda: True
    assert made.converge()
    assert seen[0] == "read"


def test_when_it_is_done_the_next_one_takes_it_to_be_there_and_reads_all_in_the_end() -> None:
    made, kernel, maps = engine(HOME6)
    made.converge(_nobody, _nth(3))
    assert made.interrupted and kernel.addresses and maps.read().choices
    seen = looks(made, kernel)
    made.has_news = lambda: False
    assert not made.converge()
    assert seen == ["read"] and made.is_at_rest


def test_what_was_wrongly_taken_to_be_there_is_put_right_in_the_end() -> None:
    made, kernel, _ = engine(HOME6)
    made.has_news = lambda: False
    made.converge(_nobody, _nth(3))
    assert made.interrupted and kernel.rules
    kernel.rules.clear()
    assert made.converge()
    assert kernel.rules and made.is_at_rest


def test_news_that_came_while_rows_alone_were_written_are_looked_at() -> None:
    made, kernel, maps = engine(HOME6)
    made.converge()
    maps.apply(tables.PREFIXES.drop(1))
    made.has_news = lambda: True
    made.converge(_nobody, _nth(3), anew=False)
    assert made.interrupted and maps.read().prefixes
    seen = looks(made, kernel)
    made.has_news = lambda: False
    assert not made.converge(anew=False)
    assert seen == ["read"]


def test_what_was_taken_away_is_taken_to_be_gone() -> None:
    made, kernel, _ = engine(HOME6)
    made.converge()
    before = set(kernel.rules)
    made.table = PrefixTable(b"secret")
    made.converge(_nobody, _nth(3))
    gone = before - kernel.rules
    assert made.interrupted and gone
    made.has_news = lambda: False
    again: list[KernelAction] = []
    kernel.fault = again.append
    made.converge()
    assert not kernel.rules
    assert gone.isdisjoint(each.rule for each in again if isinstance(each, RemoveRule))


def test_what_failed_before_is_still_told() -> None:
    made, kernel, _ = engine(HOME6)

    def refuse(_: KernelAction) -> None:
        raise KernelError("no room")

    kernel.fault = refuse
    made.converge()
    failures = made.failures
    assert failures
    made.converge(_nobody, _nth(1))
    assert made.interrupted and made.failures == failures


def test_what_had_gone_without_us_is_told_by_the_pass_that_puts_it_back() -> None:
    made, kernel, _ = engine(HOME6)
    made.converge()
    kernel.rules.clear()
    made.converge(_nobody, _nth(1))
    assert made.interrupted and not made.take_vanished()
    made.converge()
    assert kernel.rules and made.take_vanished()
