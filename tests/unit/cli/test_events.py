"""What happened, as a line for people and as a line for programs."""

import json
from typing import Any

import pytest

from odm_agent.control.answers import Events, EventView
from odm_agent.core.errors import ControlError
from tests.unit.cli.conftest import Cli, FakeAgent

TIME = "2027-01-15T08:00:00.250Z"
ROTATED = EventView(
    number=4,
    time=TIME,
    event="rotated",
    prefix="web",
    type="nonpersistent",
    address="192.0.2.1",
    new="192.0.2.2",
)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ROTATED, f"{TIME} rotated    web nonpersistent 192.0.2.1 -> 192.0.2.2"),
        (
            EventView(
                number=5, time=TIME, event="refused", class_="ssh", type="fixed", detail="cap"
            ),
            f"{TIME} refused    ssh fixed (cap)",
        ),
        (
            EventView(number=6, time=TIME, event="alarm", detail="no address is left"),
            f"{TIME} alarm      no address is left",
        ),
    ],
)
def test_an_event_is_a_line(event: EventView, line: str, agent: FakeAgent, cli: Cli) -> None:
    agent.answers["events"] = Events(newest=event.number, events=[event])
    assert cli("events", "--socket", agent.socket).stdout == line + "\n"


def test_json_is_a_line_for_each_event(agent: FakeAgent, cli: Cli) -> None:
    agent.answers["events"] = Events(newest=4, lost=2, events=[ROTATED, ROTATED])
    result = cli("events", "--json", "--socket", agent.socket)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["event"], line["new"], line["class"]) for line in lines] == [
        ("rotated", "192.0.2.2", None)
    ] * 2
    assert result.stderr == "", "what is long gone is not missed"


def test_to_follow_is_to_ask_for_what_comes_after_and_to_say_what_was_missed(
    agent: FakeAgent, cli: Cli
) -> None:
    answers = [
        Events(newest=4, events=[ROTATED]),
        Events(newest=4),
        Events(newest=9, lost=4, events=[ROTATED]),
        ControlError("the agent stops"),
    ]

    class InTurn(dict[str, Any]):
        def __getitem__(self, verb: str) -> Any:
            return answers.pop(0)

    agent.answers = InTurn(agent.answers)
    result = cli("events", "--follow", "--socket", agent.socket)
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.splitlines() == [
        "odm-agent: 4 events were missed: too many in too little time",
        "odm-agent: the agent stops",
    ]
    assert result.exit_code == 1
    assert agent.called("events") == [
        {"after": 0},
        {"after": 4, "wait": True},
        {"after": 4, "wait": True},
        {"after": 9, "wait": True},
    ]
