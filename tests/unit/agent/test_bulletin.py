"""Alarms are told when they begin and when they end, once each."""

from types import SimpleNamespace
from typing import Any

import pytest

from odm_agent.agent import status
from odm_agent.agent.bulletin import Bulletin
from odm_agent.agent.event_log import EventLog


def test_an_alarm_is_an_event_when_it_begins_and_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alarms = ["no address is left"]
    monkeypatch.setattr(status, "alarms", lambda state: alarms)
    monkeypatch.setattr(status, "offered", lambda state: [])
    engine = SimpleNamespace(take_vanished=list, table=SimpleNamespace(rows=()))
    state: Any = SimpleNamespace(
        engine=engine, events=EventLog(), reloads=SimpleNamespace(error=None)
    )
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
