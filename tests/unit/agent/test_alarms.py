"""Alarms are told whatever cannot be found out, and whatever cannot be done."""

from types import SimpleNamespace
from typing import Any

import pytest

from odm_agent.agent import status
from odm_agent.agent.host_settings import HostSettings
from odm_agent.agent.state import Attachments, State
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
    monkeypatch.setattr("odm_agent.agent.host_settings.sysctl.read", lambda name: "0")
    monkeypatch.setattr(
        "odm_agent.agent.host_settings.sysctl.write", lambda name, value: written.append(name)
    )
    shield = SimpleNamespace(confined={"w0", "w1"})
    monkeypatch.setattr("odm_agent.agent.host_settings.shield", lambda table, host: shield)
    settings = HostSettings(journal)
    settings.change(PrefixTable(b""), HostState())
    assert settings.trouble == "the disk is full"
    settings.put_back(PrefixTable(b""), HostState())
    assert settings.trouble == "the disk is full" and not written
