"""Whether prefixes can wander as the configuration says: each takes others of the same worth."""

from collections.abc import Iterator

from odm_agent.config.check_terms import SHORTEST_S
from odm_agent.config.problems import Problem
from odm_agent.config.quantities import seconds
from odm_agent.config.schema import Config, PrefixConfig
from odm_agent.config.values import network_of

#: Type, IP version and preference.
_Worth = tuple[str, int, int]


def check_wander(config: Config) -> Iterator[Problem]:
    """All problems of the key `wander`, of single prefixes and of those that wander together."""
    together: dict[_Worth, dict[str, int]] = {}
    for name, prefix in config.prefixes.items():
        if prefix.wander is None:
            continue
        try:
            every_s = seconds(prefix.wander)
        except ValueError as error:
            yield Problem(_at(name), str(error))
            every_s = 0  # it wanders all the same
        else:
            yield from _single(name, prefix, every_s)
        if prefix.type != "fixed" and (worth := _worth(prefix)) is not None:
            together.setdefault(worth, {})[name] = every_s
    for worth, said in together.items():
        yield from _together(worth, said)


def _single(name: str, prefix: PrefixConfig, every_s: int) -> Iterator[Problem]:
    if prefix.type == "fixed":
        yield Problem(
            _at(name),
            "a fixed address is the one that others know the host by (RFC 8653, section 3.2), and"
            " new sockets must get it, too; leave this out, or use another type",
        )
    elif every_s < SHORTEST_S:
        yield Problem(
            _at(name),
            f"{every_s} s is too short: kernel and maps are looked at each time; use at least"
            f" {SHORTEST_S}s",
        )


def _together(worth: _Worth, said: dict[str, int]) -> Iterator[Problem]:
    type_, version, preference = worth
    what = f"type {type_}, IPv{version} and preference {preference}"
    first, *others = said
    if not others:
        yield Problem(
            _at(first),
            f"no other prefix of {what} wanders, so there is none to take its place; give another"
            " one wander, too, or leave this out",
        )
        return
    durations = {name: every_s for name, every_s in said.items() if every_s}
    like = next(iter(durations), first)
    for name, every_s in durations.items():
        if every_s != durations[like]:
            yield Problem(
                _at(name),
                f"prefixes of {what} wander together, and {like!r} says {durations[like]} s where"
                f" this says {every_s} s; say the same, or use another preference",
            )


def _worth(prefix: PrefixConfig) -> _Worth | None:
    try:
        return prefix.type, network_of(prefix).version, prefix.preference
    except ValueError:
        return None  # that is told of the prefix itself


def _at(name: str) -> tuple[str, ...]:
    return "prefixes", name, "wander"
