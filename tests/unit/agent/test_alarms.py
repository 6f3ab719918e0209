"""Alarms are told whatever cannot be found out, and whatever cannot be done."""

from types import SimpleNamespace
from typing import Any

import pytest

from odm_agent.agent import status
from odm_agent.agent.state import Attachments, State
from odm_agent.agent.uplinks import Uplinks
from odm_agent.core.errors import DatapathError, KernelError
from odm_agent.core.host import HostState
from odm_agent.journal import JournalError
from odm_agent.prefixes.table import PrefixTable


def raising(error: Exception) -> Any:
    def do(*_: object) -> Any:
        raise error

    return do


def test_one_that_cannot_be_found_out_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (raising(DatapathError("no descriptor")), lambda state: ["the uplink is down"])
    monkeypatch.setattr(status, "_PARTS", parts)
    attachments = Attachments((), ())
    state: Any = SimpleNamespace(
        troubles={"counting": "no memory"}, attachments=lambda: attachments
    )
    assert status.alarms(state) == [
        "counting failed, and is tried again: no memory",
        "not all alarms can be told: no descriptor",
        "the uplink is down",
    ]


def test_cgroups_that_cannot_be_watched_are_an_alarm_and_no_end() -> None:
    follow = raising(KernelError("watching: No space left. Raise fs.inotify.max_user_watches."))
    state: Any = SimpleNamespace(
        cgroups=SimpleNamespace(follow=follow, reserved=dict),
        engine=SimpleNamespace(classes={}),
        not_followed=None,
    )
    State._watch_cgroups(state, again=False)
    (alarm,) = status._not_followed(state)
    assert alarm.startswith("new cgroups are not noticed everywhere: ") and "max_user" in alarm


def test_settings_that_cannot_be_noted_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    full = raising(JournalError("the disk is full"))
    journal: Any = SimpleNamespace(remember_sysctl=full, sysctls=full)
    written: list[str] = []
    monkeypatch.setattr("odm_agent.agent.uplinks.sysctl.read", lambda name: "0")
    monkeypatch.setattr(
        "odm_agent.agent.uplinks.sysctl.write", lambda name, value: written.append(name)
    )
    shield = SimpleNamespace(confined={"w0", "w1"})
    monkeypatch.setattr("odm_agent.agent.uplinks.shield", lambda table, host: shield)
    uplinks = Uplinks(journal)
    uplinks.confine(PrefixTable(b""), HostState())
    assert uplinks.trouble == "the disk is full"
    uplinks.release(PrefixTable(b""), HostState())
    assert uplinks.trouble == "the disk is full" and not written
