"""The nouns: their JSON is the documented shape, their tables say the same to people."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from odm_agent.cli import enforced
from odm_agent.control.answers import WanderView
from odm_agent.core.errors import ControlError
from tests.unit.cli.conftest import (
    ADDRESSES,
    CLASSES,
    PREFIXES,
    SOCKETS,
    STATUS,
    Cli,
    FakeAgent,
)

READS = {
    "status": STATUS,
    "prefixes": PREFIXES,
    "addresses": ADDRESSES,
    "sockets": SOCKETS,
    "classes": CLASSES,
}


@pytest.mark.parametrize("noun", READS)
def test_json_is_the_shape_and_nothing_else(noun: str, agent: FakeAgent, cli: Cli) -> None:
    result = cli(noun, "--json", "--socket", agent.socket)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == msgspec.to_builtins(READS[noun])


@pytest.mark.parametrize(
    ("noun", "words"),
    [
        ("status", ["since", "11 programs", "/sys/fs/bpf/odm"]),
        ("prefixes", ["isp6", "2001:db8:1::/64", "waiting", "there is no interface wwan0"]),
        ("addresses", ["2001:db8:1::7", "fixed", "ready"]),
        ("sockets", ["ssh[42]", "[2001:db8:1::7]:22", "unclassified"]),
        ("classes", ["ssh", "fixed, session-lasting", "closed", "audit"]),
    ],
)
def test_tables_say_it_to_people(noun: str, words: list[str], agent: FakeAgent, cli: Cli) -> None:
    result = cli(noun, "--socket", agent.socket)
    assert result.exit_code == 0
    assert [word for word in words if word not in result.stdout] == []


@pytest.mark.parametrize(
    ("options", "cookies"),
    [
        ([], [7, 8, 9]),
        (["--class", "ssh"], [7]),
        (["--class", "unclassified"], [9]),
        (["--type", "fixed"], [7]),
        (["--pid", "43"], [8]),
        (["--pid", "43", "--class", "ssh"], []),
    ],
)
def test_sockets_are_filtered(
    options: list[str], cookies: list[int], agent: FakeAgent, cli: Cli
) -> None:
    result = cli("sockets", "--json", "--socket", agent.socket, *options)
    assert [each["cookie"] for each in json.loads(result.stdout)] == cookies


def test_sockets_say_what_they_cannot_list(agent: FakeAgent, cli: Cli) -> None:
    assert "only bound" in cli("sockets", "--socket", agent.socket).stderr


def test_empty_lists_are_sentences(agent: FakeAgent, cli: Cli) -> None:
    agent.answers["prefixes"] = []
    assert cli("prefixes", "--socket", agent.socket).stdout == "no typed prefixes\n"
    assert json.loads(cli("prefixes", "--json", "--socket", agent.socket).stdout) == []


@pytest.mark.parametrize(
    ("first", "behind", "words"),
    [
        ("web2", ["web1", "web3"], "web2 first for 1h 2m, behind it web1, web3"),
        ("web2", [], "web2 first for 1h 2m"),
        (None, [], "none can serve"),
    ],
)
def test_the_status_says_which_prefix_stands_first_and_how_long(
    first: str | None, behind: list[str], words: str, agent: FakeAgent, cli: Cli
) -> None:
    view = WanderView(
        type="nonpersistent",
        family="ipv6",
        preference=0,
        first=first,
        behind=behind,
        seconds_left=3725.0,
    )
    agent.answers["status"] = msgspec.structs.replace(STATUS, wandering=[view])
    shown = cli("status", "--socket", agent.socket).stdout
    (line,) = [each for each in shown.splitlines() if each.startswith("wandering")]
    assert line.split(maxsplit=1)[1].rstrip() == f"nonpersistent, ipv6, preference 0: {words}"


def test_a_refused_reload_and_alarms_are_seen_in_the_status(agent: FakeAgent, cli: Cli) -> None:
    agent.answers["status"] = msgspec.structs.replace(
        STATUS, reload_error="x.toml:3: no such key", alarms=["no untyped IPv6 address is left"]
    )
    shown = cli("status", "--socket", agent.socket).stdout
    assert "REFUSED: x.toml:3: no such key" in shown
    assert "no untyped IPv6 address is left" in shown


@pytest.mark.parametrize("noun", READS)
def test_without_agent_every_read_exits_3_and_says_how_to_start_it(
    noun: str, cli: Cli, tmp_path: Path
) -> None:
    result = cli(noun, "--socket", tmp_path / "none")
    assert result.exit_code == 3
    assert "odm-agent run" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("is_there", "attached", "words"),
    [
        (True, (13, 13), "Enforcement goes on without the agent"),
        (True, (3, 13), "Enforcement goes on in part without the agent: 3 of its 13"),
        (True, (0, 0), "is attached to no cgroup: nothing is enforced"),
        (True, (0, 13), "is attached to no cgroup, but 13 programs called as ours are attached"),
        (True, None, "cannot be told"),
        (False, (0, 0), "Nothing is pinned in"),
        (False, (0, 13), "it is enforced by programs whose pins are hidden"),
        (False, None, "cannot be told"),
    ],
)
def test_without_agent_the_status_says_whether_enforcement_goes_on(
    is_there: bool,
    attached: tuple[int, int] | None,
    words: str,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = None if attached is None else enforced._Attached(*attached, of=13)
    monkeypatch.setattr(enforced, "_attached", lambda pin_dir, cgroup: found)
    folder = tmp_path / "pins"
    if is_there:
        (folder / "links").mkdir(parents=True)
    config = tmp_path / "c.toml"
    config.write_text(f'[agent]\nsocket = "{tmp_path}/none"\npin_dir = "{folder}"\n')
    result = cli("status", "--config", config)
    assert result.exit_code == 3
    assert words in result.stderr


def test_the_socket_comes_from_option_environment_configuration_in_this_order(
    agent: FakeAgent, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, nowhere = tmp_path / "here.toml", tmp_path / "nowhere.toml"
    # Broken elsewhere: where the socket is can still be told.
    here.write_text(f'[agent]\nsocket = "{agent.socket}"\nmark_mask = "x"\n')
    nowhere.write_text(f'[agent]\nsocket = "{tmp_path}/none"\n')
    assert cli("classes", "-c", here).exit_code == 0
    assert cli("classes", "-c", nowhere).exit_code == 3
    assert cli("classes", "-c", nowhere, "-s", agent.socket).exit_code == 0
    monkeypatch.setenv("ODM_AGENT_SOCKET", str(agent.socket))
    assert cli("classes", "-c", nowhere).exit_code == 0
    assert cli("classes", "-c", here, "-s", tmp_path / "none").exit_code == 3


def test_an_error_of_the_agent_is_printed_as_it_stands(agent: FakeAgent, cli: Cli) -> None:
    agent.answers["status"] = ControlError("the agent is still starting; try again in a moment")
    result = cli("status", "--socket", agent.socket)
    assert result.exit_code == 1
    assert result.stderr == "odm-agent: the agent is still starting; try again in a moment\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sockets", "--type", "fast"], "there are fixed, session-lasting"),
        (["prefixes", "--type", "unspecified"], "there are fixed, session-lasting"),
        (["sockets", "--pid", "0"], "greater than or equal to 1"),
        (["nonsense"], "nonsense"),
        (["explain", "1"], "DEST"),
    ],
)
def test_bad_input_exits_2_and_names_what_would_be_good(
    arguments: list[str], words: str, agent: FakeAgent, cli: Cli
) -> None:
    result: Any = cli(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())
