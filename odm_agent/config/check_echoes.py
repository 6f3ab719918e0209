"""Whether the hosts can be asked that uplinks and delegations name."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from odm_agent.config.problems import Problem
from odm_agent.config.quantities import seconds
from odm_agent.config.schema import Config

#: How often a host may be asked, and how seldom is of any use (seconds).
_SHORTEST_S: Final = 1
_LONGEST_S: Final = 3600


def check_echoes(config: Config) -> Iterator[Problem]:
    """All problems of `echo` and `echo_interval`."""
    for kind, sections in (("uplinks", config.uplinks), ("delegations", config.delegations)):
        for name, each in sections.items():
            yield from _targets((kind, name, "echo"), each.echo, ipv4=kind == "uplinks")
            yield from _interval((kind, name, "echo_interval"), each.echo_interval)
    for name, uplink in config.uplinks.items():
        if uplink.echo and uplink.exclusive:
            yield Problem(
                ("uplinks", name, "echo"),
                "the addresses of an exclusive uplink are for sockets of classes alone, not for the"
                " agent to ask from; leave echo or exclusive out",
            )


def _targets(where: tuple[str, ...], targets: list[str], *, ipv4: bool) -> Iterator[Problem]:
    versions: set[int] = set()
    for text in targets:
        try:
            target = ip_address(text)
        except ValueError:
            yield Problem(where, f"{text[:64]!r} is no address; write one like 2001:db8::1")
            continue
        odd = target.is_multicast or target.is_loopback or target.is_unspecified
        if odd or "%" in text or (target.version == 4 and int(target) == 0xFFFFFFFF):
            yield Problem(where, f"{text[:64]!r} is no other host's address; name a host's")
        elif target.version == 4 and not ipv4:
            yield Problem(where, "a delegation has IPv6 prefixes alone; name a host by IPv6")
        elif target.version in versions:
            yield Problem(
                where, f"a second IPv{target.version} host; name one of each IP version at most"
            )
        versions.add(target.version)


def _interval(where: tuple[str, ...], text: str) -> Iterator[Problem]:
    try:
        interval_s = seconds(text)
    except ValueError as error:
        yield Problem(where, str(error))
        return
    if not _SHORTEST_S <= interval_s <= _LONGEST_S:
        yield Problem(where, f"{text!r} is out of range; use {_SHORTEST_S}s to 1h")
