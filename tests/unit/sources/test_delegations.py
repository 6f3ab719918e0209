"""What a source is told is what the configuration says."""

import itertools
from ipaddress import IPv6Address
from pathlib import Path

from odm_agent.config.load import parse
from odm_agent.core.model import TYPES, AddressType
from odm_agent.sources.delegations import delegation_settings, first_instance
from odm_agent.sources.dhcpv6.bindings import MOST_BINDINGS
from odm_agent.sources.dhcpv6.settings import Settings

FIXED, SESSION, BRIEF = TYPES[:3]


def told(text: str) -> Settings:
    return delegation_settings(parse(f"[delegations.isp]\n{text}\n", Path("f.toml")))["isp"]


def test_an_interface_is_enough() -> None:
    each = told('interface = "w0"')
    assert (each.name, each.interfaces, each.types) == ("isp", ("w0",), frozenset(TYPES))
    assert (each.at_start, each.untyped_as, each.enterprise) == (frozenset(), None, None)
    assert (each.option_code, each.length, each.gateway) == (65001, 64, None)
    assert each.terms_of(BRIEF).rotate_s == 86400
    assert not each.terms_of(FIXED).end


def test_all_that_is_said_is_told() -> None:
    each = told(
        'interface = "w0"\ntypes = ["fixed", "nonpersistent"]\nat_start = ["nonpersistent"]\n'
        'option = 300\nenterprise = 32473\nuntyped = "nonpersistent"\nlength = 56\n'
        'gateway = "fe80::1"\npool = 4\npreference = 7\nsharing = "socket"\nforwarded = "allow"\n'
        '[delegations.isp.terms.nonpersistent]\npreferred = "1h"'
    )
    assert each.types == {FIXED, BRIEF}
    assert each.at_start == {BRIEF}
    assert (each.option_code, each.enterprise, each.length) == (300, 32473, 56)
    assert (each.untyped_as, each.gateway) == (BRIEF, IPv6Address("fe80::1"))
    assert (each.pool, each.preference, each.forwarded) == (4, 7, True)
    assert each.per_socket == {BRIEF}
    assert each.terms_of(BRIEF).preferred_s == 3600


def test_the_lifetimes_of_classes_bound_those_of_addresses() -> None:
    text = (
        'interface = "w0"\n[classes.c]\ncgroups = ["c"]\nallow = ["session-lasting"]\n'
        '[classes.c.lifetimes.session-lasting]\npreferred = "2h"'
    )
    assert told(text).terms_of(SESSION).preferred_s == 7200
    assert (
        told(text.replace("[classes.c]", '[classes.c]\nmode = "off"'))
        .terms_of(AddressType.SESSION_LASTING)
        .preferred_s
        is None
    )


def test_iaids_of_two_delegations_are_never_the_same_and_stay() -> None:
    firsts = {first_instance(name) for name in ("isp", "office", "lte", "wlan")}
    assert len(firsts) == 4
    assert first_instance("isp") == first_instance("isp")
    assert all(0 <= each < (1 << 24) - MOST_BINDINGS for each in firsts)
    spread = sorted(firsts)
    assert all(b - a >= MOST_BINDINGS for a, b in itertools.pairwise(spread))
