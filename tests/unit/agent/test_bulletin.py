"""Alarms are told when they begin and when they end, and which prefix stands first, once each."""

from types import SimpleNamespace
from typing import Any

import pytest

from odm_agent.agent import bulletin as told
from odm_agent.agent import status
from odm_agent.agent.bulletin import Bulletin
from odm_agent.agent.event_log import EventLog
from odm_agent.agent.standings import Standing
from odm_agent.core.model import AddressType, Family
from odm_agent.core.wandering import Wanderers

WEB = Wanderers(AddressType.NONPERSISTENT, Family.IPV6, 0, 60)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A state of which nothing is to be told."""
    monkeypatch.setattr(status, "alarms", lambda state: [])
    monkeypatch.setattr(status, "offered", lambda state: [])
    monkeypatch.setattr(told, "standings", lambda engine: {})
    engine = SimpleNamespace(take_vanished=list, table=SimpleNamespace(rows=()))
    return SimpleNamespace(engine=engine, events=EventLog(), reloads=SimpleNamespace(error=None))


def test_an_alarm_is_an_event_when_it_begins_and_when_it_is_over(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarms = ["no address is left"]
    monkeypatch.setattr(status, "alarms", lambda state: alarms)
    bulletin = Bulletin(state)
    for now_s in (1.0, 2.0):
        bulletin.tell(now_s)
    alarms.clear()
    for now_s in (3.0, 4.0):
        bulletin.tell(now_s)
    assert [(each.event, each.detail) for each in state.events.after(0)] == [
        ("alarm", "no address is left"),
        ("alarm-over", "no address is left"),
    ]


def test_another_prefix_that_stands_first_is_an_event_and_the_first_one_is_none(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it one that none can serve for a while, and the same one then does."""
    names: list[str] = []

    def row(name: str) -> Any:
        return SimpleNamespace(prefix=SimpleNamespace(name=name, type=WEB.type))

    monkeypatch.setattr(
        told, "standings", lambda engine: {WEB: Standing(WEB, tuple(map(row, names)), 9.0)}
    )
    bulletin = Bulletin(state)
    for served in ("", "one two", "one two", "two", "", "two one", "one"):
        names[:] = served.split()
        bulletin.tell(1.0)
    assert [
        (each.event, each.prefix, each.type, each.detail) for each in state.events.after(0)
    ] == [
        ("wandered", "two", "nonpersistent", "in the place of one"),
        ("wandered", "one", "nonpersistent", "in the place of two"),
    ]
