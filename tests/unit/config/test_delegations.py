"""What the network is asked for is checked as thoroughly as what is configured."""

import re
from pathlib import Path

import pytest

from odm_agent.config.delegations import all_as_prefixes, as_prefix, release_after
from odm_agent.config.load import parse, review
from odm_agent.config.schema import Config
from odm_agent.config.terms import terms_of
from odm_agent.core.errors import ConfigError
from odm_agent.core.host import HostState, Link

HEAD = '[delegations.isp]\ninterface = "eth0"\n'


def parsed(extra: str = "") -> Config:
    return parse(f"{HEAD}{extra}\n", Path("f.toml"))


def refused(extra: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parsed(extra)
    return str(caught.value).splitlines()


def test_an_interface_is_all_that_it_needs() -> None:
    each = parsed().delegations["isp"]
    assert len(each.types) == 4
    assert each.at_start == []
    assert release_after(each) == 0


@pytest.mark.parametrize(
    ("value", "after"), [("never", None), ("unused", 0.0), ("10m", 600.0), ("1h30m", 5400.0)]
)
def test_a_release_is_said_in_words_or_as_a_duration(value: str, after: float | None) -> None:
    assert release_after(parsed(f'release = "{value}"').delegations["isp"]) == after


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ('release = "soon"', 'isp.release: .* or "unused", or "never"'),
        ("types = []", "isp.types: nothing may be asked for"),
        ('types = ["fixed", "fixed"]', "isp.types: fixed stands there twice"),
        ('types = ["sticky"]', "isp.types: .*'sticky'"),
        (
            'types = ["fixed"]\nat_start = ["nonpersistent"]',
            "isp.at_start: nonpersistent may not be asked for; add it to types",
        ),
        ('types = ["fixed"]\nuntyped = "nonpersistent"', "isp.untyped: nonpersistent may not"),
        ("option = 0", "isp.option: 0 is out of range; use 1 to 65535"),
        ("option = 65536", "isp.option: 65536 is out of range"),
        ("option = 25", "isp.option: 25 is an option of DHCPv6 itself"),
        ("enterprise = 0", "isp.enterprise: 0 is out of range; use 1 to 4294967295"),
        ("enterprise = 4294967296", "isp.enterprise: 4294967296 is out of range"),
        ("length = 47", "isp.length: 47 is out of range; use 48 to 64"),
        ("length = 65", "isp.length: 65 is out of range"),
        ('gateway = "192.0.2.1"', "isp.gateway: 192.0.2.1 is IPv4"),
        ('gateway = "ff02::1"', "isp.gateway: ff02::1 is no next hop"),
        ('gateway = "router"', "isp.gateway: no address"),
        ("pool = 0", "isp.pool: 0 is out of range; use 1 to 32768"),
        ("linger = 0", "isp.linger: 0 is out of range; use 1 to 1024"),
        ('types = ["fixed"]\nsharing = "socket"', "isp.sharing: .*have no fixed one"),
        ("retries = 3", "isp.retries: there is no such key"),
        (
            '[delegations.isp.terms.fixed]\nvalid = "1h"',
            "isp.terms.fixed.valid: a fixed address is for ever",
        ),
        (
            'types = ["fixed"]\n[delegations.isp.terms.nonpersistent]\nvalid = "1h"',
            "isp.terms: nonpersistent may not be asked for",
        ),
        (
            '[delegations.isp.terms.nonpersistent]\nrotate = "1s"',
            "isp.terms.nonpersistent.rotate: 1 s is shorter",
        ),
        (
            "[delegations.isp.terms.nonpersistent]\nhard = true",
            "isp.terms.nonpersistent.hard: there is no budget",
        ),
    ],
)
def test_what_is_wrong_is_told_once_with_its_key(extra: str, what: str) -> None:
    (message,) = refused(extra)
    assert re.search(f"^f.toml:\\d+: delegations.{what}", message), message


@pytest.mark.parametrize("name", ["lo", "", "a/b", "sixteen-bytes-xx"])
def test_an_interface_is_one_by_which_packets_leave(name: str) -> None:
    with pytest.raises(ConfigError, match=r"f.toml:2: delegations.isp.interface: "):
        parse(f'[delegations.isp]\ninterface = "{name}"\n', Path("f.toml"))


def test_one_client_answers_for_a_link() -> None:
    with pytest.raises(ConfigError, match=r"f.toml:4: delegations.two.interface: .*'isp' asks on"):
        parse(f'{HEAD}[delegations.two]\ninterface = "eth0"\n', Path("f.toml"))


def test_a_name_is_that_of_a_prefix_or_of_a_delegation() -> None:
    prefix = '[prefixes.isp]\ntype = "fixed"\nprefix = "2001:db8::/64"\ninterface = "eth0"\n'
    with pytest.raises(ConfigError, match=r"f.toml:1: delegations.isp: a prefix has this name"):
        parse(f'{HEAD}{prefix}placement = "delegated"\n', Path("f.toml"))


def test_a_name_is_that_of_an_uplink_or_of_a_delegation() -> None:
    uplink = '[uplinks.isp]\ninterface = "wl*"\ntype = "nonpersistent"\n'
    with pytest.raises(ConfigError, match=r"f.toml:1: delegations.isp: an uplink has this name"):
        parse(f"{HEAD}{uplink}", Path("f.toml"))


def test_there_are_marks_for_all_that_may_come() -> None:
    mask = "[agent]\nmark_mask = 0xF0000000\n"
    each = '[delegations.{0}]\ninterface = "{0}"\n'
    parse(mask + "".join(map(each.format, "abc")), Path("f.toml"))
    with pytest.raises(ConfigError, match="4 bits tell 15 prefixes apart, there are 16"):
        parse(mask + "".join(map(each.format, "abcd")), Path("f.toml"))


def test_terms_are_those_of_a_static_prefix_of_the_type() -> None:
    each = parsed('sharing = "host"\n[delegations.isp.terms.session-lasting]\nrotate = "2h"')
    prefixes = all_as_prefixes(each)
    assert list(prefixes)[:2] == ["isp/fixed", "isp/session-lasting"]
    assert terms_of(prefixes["isp/session-lasting"]).rotate_s == 7200
    assert terms_of(prefixes["isp/nonpersistent"]).rotate_s == 86400
    assert not terms_of(prefixes["isp/fixed"]).end


def test_fixed_addresses_are_shared() -> None:
    each = parsed('sharing = "socket"').delegations["isp"]
    assert as_prefix(each, "fixed").sharing == "host"
    assert as_prefix(each, "nonpersistent").sharing == "socket"


def test_a_type_that_can_be_asked_for_is_served() -> None:
    config = parsed('[classes.c]\ncgroups = ["c"]\nallow = ["fixed"]')
    assert not review(config, HostState(links={"eth0": Link("eth0", 2, True)})).warnings
    (warning,) = review(config, HostState()).warnings
    assert "nothing is asked for until it appears" in warning.message


def test_a_lifetime_of_a_class_needs_successors() -> None:
    text = '[classes.c]\ncgroups = ["c"]\nallow = ["nonpersistent"]\n'
    text += '[classes.c.lifetimes.nonpersistent]\npreferred = "1h"'
    parsed(text)
    (message,) = refused(f"pool = 300\n{text}")
    assert "no other address of prefix isp/nonpersistent could take the place" in message
