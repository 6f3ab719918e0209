"""Prefixes wander together with others of the same worth, by one duration, or not at all."""

from pathlib import Path

import pytest

from odm_agent.config.load import parse
from odm_agent.config.terms import wander_of
from odm_agent.core.errors import ConfigError

HEAD = """[prefixes.{name}]
type = "{kind}"
prefix = "2001:db8:{name}::/64"
interface = "eth0"
placement = "delegated"
"""
LENGTH = HEAD.count("\n")


def prefix(name: str, extra: str = "", kind: str = "nonpersistent") -> str:
    return HEAD.format(name=name, kind=kind) + f"{extra}\n"


def refused(*prefixes: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse("".join(prefixes), Path("f.toml"))
    return str(caught.value).splitlines()


def test_it_is_asked_for_and_said_in_any_words() -> None:
    text = prefix("1", 'wander = "90m"') + prefix("2", 'wander = "1h30m"') + prefix("3")
    entries = parse(text, Path("f.toml")).prefixes
    assert [wander_of(entries[each]) for each in "123"] == [5400, 5400, None]


@pytest.mark.parametrize("value", ["90", "soon", "0s", "never", ""])
def test_what_is_no_duration_is_told_once_with_its_line(value: str) -> None:
    (message,) = refused(prefix("1", f'wander = "{value}"'), prefix("2", 'wander = "1h"'))
    assert message.startswith(f"f.toml:{LENGTH + 1}: prefixes.1.wander: ")


def test_it_is_no_shorter_than_the_agent_needs() -> None:
    found = refused(prefix("1", 'wander = "4s"'), prefix("2", 'wander = "4s"'))
    assert [each.split(":")[1] for each in found] == ["6", "12"]
    assert all("4 s is too short" in each and each.endswith("use at least 5s") for each in found)
    parse(prefix("1", 'wander = "5s"') + prefix("2", 'wander = "5s"'), Path("f.toml"))


def test_a_fixed_address_does_not_wander() -> None:
    found = refused(*(prefix(name, 'wander = "1h"', "fixed") for name in "12"))
    assert len(found) == 2
    assert "a fixed address is the one that others know" in found[0]
    assert "; leave this out, or use another type" in found[0]


@pytest.mark.parametrize(
    "other",
    [
        prefix("2"),
        prefix("2", 'wander = "1h"', "session-lasting"),
        prefix("2", 'wander = "1h"\npreference = 1'),
        prefix("2", 'wander = "1h"').replace("2001:db8:2::/64", "192.0.2.0/24"),
    ],
)
def test_alone_of_its_worth_it_has_none_to_wander_with(other: str) -> None:
    message, *_ = refused(prefix("1", 'wander = "1h"'), other)
    assert message.startswith(f"f.toml:{LENGTH + 1}: prefixes.1.wander: no other prefix of type")
    assert "nonpersistent, IPv6 and preference 0 wanders" in message
    assert "; give another one wander, too, or leave this out" in message


def test_those_that_wander_together_say_the_same() -> None:
    (message,) = refused(
        prefix("1", 'wander = "1h"'), prefix("2", 'wander = "60m"'), prefix("3", 'wander = "1d"')
    )
    assert message.startswith(f"f.toml:{3 * LENGTH + 3}: prefixes.3.wander: ")
    assert "'1' says 3600 s where this says 86400 s; say the same, or use another" in message


def test_what_has_no_network_is_told_of_the_prefix_alone() -> None:
    nonsense = prefix("2", 'wander = "1h"').replace("2001:db8:2::/64", "nonsense")
    found = refused(prefix("1", 'wander = "1h"'), prefix("3", 'wander = "1h"'), nonsense)
    assert [each.split(": ")[1] for each in found] == ["prefixes.2.prefix"]
