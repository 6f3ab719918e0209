"""Whether what a configuration has the network asked for can be asked for."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from odm_agent.config.check_interfaces import check_pattern, meet
from odm_agent.config.check_prefixes import check_gateway, check_pool
from odm_agent.config.check_terms import check_terms
from odm_agent.config.delegations import as_prefix, interfaces_of, release_after
from odm_agent.config.problems import Problem, check_name
from odm_agent.config.schema import Config, DelegationConfig, TermsConfig, TypeWord
from odm_agent.config.values import network_of
from odm_agent.policy.globs import is_glob

#: Options that mean something to every DHCPv6 server (RFC 8415, section 21).
_TAKEN: Final = frozenset({*range(1, 10), *range(11, 21), 25, 26, 32, 82, 83})
_MOST_OPTION: Final = 65535
_MOST_ENTERPRISE: Final = 2**32 - 1
#: A whole site, or one link: what is longer or shorter is not taken from a network either.
_LENGTHS: Final = (48, 64)
#: A type that may end, for what is the same with all types.
_ANY: Final = "session-lasting"


def check_delegations(config: Config) -> Iterator[Problem]:
    """All problems of `[delegations]`."""
    for name, each in config.delegations.items():
        at = ("delegations", name)
        yield from check_name("delegations", name)
        for kind, others in (("a prefix", config.prefixes), ("an uplink", config.uplinks)):
            if name in others:
                yield Problem(at, f"{kind} has this name, too; logs would mix them up, use another")
        yield from _delegation(at, each)
        yield from _asked_twice(at, name, config)


def _asked_twice(at: tuple[str, ...], name: str, config: Config) -> Iterator[Problem]:
    mine = interfaces_of(config.delegations[name])
    for other, each in config.delegations.items():
        if other == name:
            return
        for pattern in mine:
            if any(meet(pattern, theirs) for theirs in interfaces_of(each)):
                yield Problem(
                    (*at, "interface"),
                    f"delegation {other!r} asks on {pattern!r} already, and one client answers"
                    " for a link (UDP port 546); put the types of both into one",
                )


def _delegation(at: tuple[str, ...], each: DelegationConfig) -> Iterator[Problem]:
    yield from _types(at, each)
    yield from _numbers(at, each)
    try:
        release_after(each)
    except ValueError as error:
        yield Problem((*at, "release"), f'{error}; or "unused", or "never"')
    least, most = _LENGTHS
    if not least <= each.length <= most:
        yield Problem((*at, "length"), f"{each.length} is out of range; use {least} to {most}")
        return
    general = as_prefix(each, _ANY)
    network = network_of(general)
    patterns = interfaces_of(each)
    if not patterns:
        yield Problem((*at, "interface"), "none is named; name the one towards the network")
    for pattern in patterns:
        yield from check_pattern((*at, "interface"), pattern)
    for pattern in sorted({p for p in patterns if patterns.count(p) > 1}):
        yield Problem((*at, "interface"), f"{pattern!r} stands there twice; keep one")
    if each.gateway is not None and (len(patterns) > 1 or is_glob(patterns[0])):
        yield Problem(
            (*at, "gateway"),
            "each of several interfaces leads to another router; leave gateway out",
        )
    yield from check_gateway(at, general, network)
    shown = {*DelegationConfig.__struct_fields__} - {*TermsConfig.__struct_fields__}
    for problem in check_pool(at, general, network, 1):
        if problem.where[-1] in shown:
            yield problem
    if each.sharing == "socket" and set(each.types) == {"fixed"}:
        yield Problem(
            (*at, "sharing"),
            'sockets with addresses of their own have no fixed one; use sharing = "host"',
        )
    for word in each.terms:
        where = (*at, "terms", word)
        for problem in check_terms(where, as_prefix(each, word), network):
            if problem.where[-1] in TermsConfig.__struct_fields__:
                yield replace(problem, where=(*where, problem.where[-1]))


def _types(at: tuple[str, ...], each: DelegationConfig) -> Iterator[Problem]:
    if not each.types:
        yield Problem((*at, "types"), "nothing may be asked for; name types, or leave this out")
    for key, words in (("types", each.types), ("at_start", each.at_start)):
        for word in sorted({word for word in words if words.count(word) > 1}):
            yield Problem((*at, key), f"{word} stands there twice; keep one")
    named: dict[str, list[TypeWord]] = {
        "at_start": each.at_start,
        "untyped": [each.untyped] if each.untyped else [],
        "terms": list(each.terms),
    }
    for key, those in named.items():
        for word in dict.fromkeys(those):
            if word not in each.types:
                yield Problem(
                    (*at, key), f"{word} may not be asked for; add it to types, or leave it out"
                )


def _numbers(at: tuple[str, ...], each: DelegationConfig) -> Iterator[Problem]:
    if not 1 <= each.option <= _MOST_OPTION:
        yield Problem((*at, "option"), f"{each.option} is out of range; use 1 to {_MOST_OPTION}")
    elif each.option in _TAKEN:
        yield Problem(
            (*at, "option"),
            f"{each.option} is an option of DHCPv6 itself (RFC 8415, section 21); use the code that"
            " the server has for the continuity service",
        )
    if each.enterprise is not None and not 1 <= each.enterprise <= _MOST_ENTERPRISE:
        yield Problem(
            (*at, "enterprise"), f"{each.enterprise} is out of range; use 1 to {_MOST_ENTERPRISE}"
        )
