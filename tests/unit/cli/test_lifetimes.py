"""What ends, as it is shown; that another address is asked for; and what was sent, since when."""

import json
import time
from datetime import datetime
from typing import Any

import msgspec
import pytest

from odm_agent.control.answers import LeaseView, Rotation, UsageView
from odm_agent.core.errors import ControlError
from tests.unit.cli.conftest import Cli, FakeAgent


def lease_view(**changes: Any) -> LeaseView:
    """A current address with a budget, half of its time and a quarter of its bytes used."""
    return msgspec.structs.replace(
        LeaseView(
            address="2001:db8:1::7",
            prefix="isp6",
            type="nonpersistent",
            phase="current",
            used_seconds=3600.0,
            preferred_seconds_left=7200.0,
            valid_seconds_left=86400.0,
            rotates_in_seconds=3600.0,
            used_bytes=250_000,
            used_packets=200,
            budget_bytes=1_000_000,
            warn_bytes=800_000,
        ),
        **changes,
    )


LEASES = [
    lease_view(),
    lease_view(address="2001:db8:1::6", phase="lingering", preferred_seconds_left=0.0),
    lease_view(address="192.0.2.9", prefix="lte4", type="session-lasting"),
]
USAGE = [
    UsageView(class_="ssh", type="fixed", bytes=1_500_000, packets=1200),
    UsageView(class_=None, type="nonpersistent", bytes=40, packets=1),
]


@pytest.fixture
def cells(agent: FakeAgent, cli: Cli) -> Any:
    """What `lifetimes` shows of one lease, by column."""

    def shown(view: LeaseView) -> dict[str, str]:
        agent.answers["lifetimes"] = [view]
        head, row = cli("lifetimes", "--socket", agent.socket).stdout.splitlines()
        starts = [head.index(word) for word in head.split()]
        ends = [*starts[1:], None]
        return {
            word: row[start:end].strip()
            for word, start, end in zip(head.split(), starts, ends, strict=True)
        }

    return shown


def test_json_is_what_the_agent_says(agent: FakeAgent, cli: Cli) -> None:
    agent.answers["lifetimes"] = LEASES
    result = cli("lifetimes", "--json", "--socket", agent.socket)
    assert json.loads(result.stdout) == msgspec.to_builtins(LEASES)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], ["2001:db8:1::7", "2001:db8:1::6", "192.0.2.9"]),
        (["--prefix", "lte4"], ["192.0.2.9"]),
        (["--type", "nonpersistent"], ["2001:db8:1::7", "2001:db8:1::6"]),
        (["--type", "session-lasting", "--prefix", "isp6"], []),
    ],
)
def test_lifetimes_are_filtered_and_stay_in_their_order(
    options: list[str], found: list[str], agent: FakeAgent, cli: Cli
) -> None:
    agent.answers["lifetimes"] = LEASES
    result = cli("lifetimes", "--json", "--socket", agent.socket, *options)
    assert [each["address"] for each in json.loads(result.stdout)] == found


def test_time_and_bytes_are_bars_and_what_comes_first_is_named(cells: Any) -> None:
    shown = cells(lease_view())
    assert (shown["TIME"], shown["LEFT"]) == ("#####-----", "1h")
    assert (shown["BYTES"], shown["SENT"]) == ("##--------", "250.0 kB of 1.0 MB")
    assert shown["ENDS"] == "rotates"


@pytest.mark.parametrize(
    ("changes", "ends", "left"),
    [
        ({"rotates_in_seconds": None}, "no longer preferred", "2h"),
        ({"used_bytes": 1_000_000}, "now: spent", "1h"),
        ({"phase": "lingering"}, "with its last socket", "1d"),
        ({"phase": "spare"}, "comes next", "1h"),
        ({"phase": "probing"}, "comes next", "1h"),
        ({"rotates_in_seconds": None, "preferred_seconds_left": None}, "with its budget", "-"),
        (
            {"rotates_in_seconds": None, "preferred_seconds_left": None, "budget_bytes": None},
            "never",
            "-",
        ),
    ],
)
def test_what_ends_an_address_is_said(
    changes: dict[str, Any], ends: str, left: str, cells: Any
) -> None:
    shown = cells(lease_view(**changes))
    assert (shown["ENDS"], shown["LEFT"]) == (ends, left)


def test_a_budget_that_is_hard_is_called_so(cells: Any) -> None:
    assert cells(lease_view(hard=True))["SENT"] == "250.0 kB of 1.0 MB (hard)"


def test_an_address_without_a_budget_has_no_bar_of_bytes(cells: Any) -> None:
    shown = cells(lease_view(budget_bytes=None))
    assert (shown["BYTES"], shown["SENT"]) == ("-", "250.0 kB")


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, "-"),
        ({"first": True, "wanders_in_seconds": 725.0}, "for 12m 5s"),
        ({"first": False, "wanders_in_seconds": 725.0}, "no"),
        ({"first": True, "wanders_in_seconds": 725.0, "phase": "lingering"}, "-"),
    ],
)
def test_it_is_said_whether_the_prefix_stands_first(
    changes: dict[str, Any], first: str, cells: Any
) -> None:
    assert cells(lease_view(**changes))["FIRST"] == first


def test_an_address_that_is_made_and_over_at_once_is_shown(cells: Any) -> None:
    shown = cells(lease_view(used_seconds=0.0, rotates_in_seconds=0.0))
    assert (shown["TIME"], shown["LEFT"]) == ("##########", "0s")


def test_rotate_says_which_address_is_given_instead(agent: FakeAgent, cli: Cli) -> None:
    agent.answers["rotate"] = [Rotation(prefix="isp6", old="2001:db8:1::7", new="2001:db8:1::8")]
    result = cli("rotate", "isp6", "--socket", agent.socket)
    assert result.stdout == "isp6: 2001:db8:1::7 -> 2001:db8:1::8\n"
    assert agent.called("rotate") == [{"what": "isp6"}]
    result = cli("rotate", "isp6", "--json", "--socket", agent.socket)
    assert json.loads(result.stdout) == msgspec.to_builtins(agent.answers["rotate"])


def test_rotate_fails_with_the_words_of_the_agent(agent: FakeAgent, cli: Cli) -> None:
    agent.answers["rotate"] = ControlError("no other address is ready")
    result = cli("rotate", "isp6", "--socket", agent.socket)
    assert result.exit_code == 1
    assert result.stderr == "odm-agent: no other address is ready\n"
    assert result.stdout == ""


def test_usage_is_a_table_of_classes_and_types(agent: FakeAgent, cli: Cli) -> None:
    agent.answers["usage"] = USAGE
    lines = cli("usage", "--socket", agent.socket).stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["ssh", "fixed", "1.5", "MB", "1500000", "1200"],
        ["unclassified", "nonpersistent", "40", "B", "40", "1"],
    ]
    shown = cli("usage", "--json", "--socket", agent.socket).stdout
    assert json.loads(shown) == msgspec.to_builtins(USAGE)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--class", "ssh"], [1_500_000]),
        (["--class", "unclassified"], [40]),
        (["--type", "nonpersistent"], [40]),
        (["--class", "ssh", "--type", "nonpersistent"], []),
    ],
)
def test_usage_is_filtered(
    options: list[str], found: list[int], agent: FakeAgent, cli: Cli
) -> None:
    agent.answers["usage"] = USAGE
    result = cli("usage", "--json", "--socket", agent.socket, *options)
    assert [each["bytes"] for each in json.loads(result.stdout)] == found


@pytest.mark.parametrize(
    ("since", "asked"),
    [
        ([], 0.0),
        (["--since", "24h"], 1.8e9 - 86400),
        (["--since", "7d"], 1.8e9 - 7 * 86400),
        (["--since", "20000d"], 1.8e9 - 20000 * 86400),
        (["--since", "30000d"], 0.0),
        (["--since", "2026-01-31"], datetime(2026, 1, 31).timestamp()),
        (["--since", "1960-01-31"], 0.0),
    ],
)
def test_usage_is_asked_since_a_moment(
    since: list[str], asked: float, agent: FakeAgent, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.8e9)
    agent.answers["usage"] = USAGE
    assert cli("usage", "--socket", agent.socket, *since).exit_code == 0
    assert agent.called("usage") == [{"since": asked}]


@pytest.mark.parametrize("since", ["yesterday", "24", "-5h", "2026-13-01", ""])
def test_a_since_that_is_no_moment_is_refused_with_how_to_write_it(
    since: str, agent: FakeAgent, cli: Cli
) -> None:
    result = cli("usage", "--socket", agent.socket, f"--since={since}")
    assert result.exit_code == 2
    assert "write it like 24h, 7d or 2026-01-31" in " ".join(
        result.stderr.replace("│", " ").split()
    )
    assert not agent.called("usage")


@pytest.mark.parametrize(
    ("noun", "sentence"), [("lifetimes", "no address ends\n"), ("usage", "nothing was sent\n")]
)
def test_nothing_is_a_sentence_too(noun: str, sentence: str, agent: FakeAgent, cli: Cli) -> None:
    agent.answers[noun] = []
    assert cli(noun, "--socket", agent.socket).stdout == sentence
