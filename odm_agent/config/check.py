"""What the schema cannot say: whether a configuration makes sense. Pure; finds all at once."""

import os
import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from odm_agent.config.check_delegations import check_delegations
from odm_agent.config.check_echoes import check_echoes
from odm_agent.config.check_lifetimes import check_lifetimes
from odm_agent.config.check_mptcp import check_mptcp
from odm_agent.config.check_prefixes import check_prefixes
from odm_agent.config.check_uplinks import check_uplinks
from odm_agent.config.delegations import all_as_prefixes
from odm_agent.config.problems import Problem, check_name
from odm_agent.config.schema import AgentConfig, ClassConfig, Config
from odm_agent.config.terms import with_room_for_classes
from odm_agent.policy.globs import is_glob

#: Where the cgroup v2 hierarchy is mounted on Debian, the longest first.
_MOUNTED: Final = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
#: How /proc/PID/cgroup begins the line of the v2 hierarchy.
_PRINTED_BY_PROC: Final = re.compile("0::/?")
#: NAME_MAX (linux/limits.h).
_LONGEST_NAME: Final = 255
#: A request every 0.6 ms: whoever needs more wants no cap.
MOST_REQUESTS: Final = 100_000


def check(config: Config) -> list[Problem]:
    """Everything that is wrong with a configuration by itself, whatever the host is like."""
    return [
        *check_agent(config.agent),
        *_classes(config),
        *check_prefixes(config),
        *check_delegations(config),
        *check_uplinks(config),
        *check_echoes(config),
        *check_mptcp(config),
    ]


def check_agent(agent: AgentConfig) -> list[Problem]:
    """What is wrong with `[agent]` alone."""
    return list(_agent(agent))


def _agent(agent: AgentConfig) -> Iterator[Problem]:
    for key in ("state_dir", "socket", "pin_dir"):
        yield from _absolute(key, getattr(agent, key))
    for key in ("cache_dir", "cgroup", "wait_socket"):
        if value := getattr(agent, key):
            yield from _absolute(key, value)
    for key in ("socket", "wait_socket"):
        if len(getattr(agent, key).encode()) > 107:
            yield Problem(
                ("agent", key), "the path is too long for a unix socket; use at most 107 bytes"
            )
    run = agent.mark_mask >> _lowest_bit(agent.mark_mask) if agent.mark_mask > 0 else 0
    if not (0 < agent.mark_mask < 2**32 and run & (run + 1) == 0 and 4 <= run.bit_length() <= 16):
        yield Problem(
            ("agent", "mark_mask"),
            f"{agent.mark_mask:#x} is not one run of 4 to 16 bits set in 32;"
            " use one like 0xFF000000 that no other software marks with",
        )
    elif run < 2**16:
        yield from _within(agent, "table_base", 256, 2**32 - 1 - run)
    yield from _within(agent, "rule_priority", 1, 32000)
    yield from _within(agent, "protocol", 5, 255)
    if agent.metrics and not _is_endpoint(agent.metrics):
        yield Problem(
            ("agent", "metrics"),
            f'{agent.metrics!r} is not ADDRESS:PORT; use one like "127.0.0.1:9653" or'
            ' "[::1]:9653", or "" for none',
        )


def _absolute(key: str, path: str) -> Iterator[Problem]:
    if not path.startswith("/") or "\0" in path:
        yield Problem(("agent", key), f"{path!r} is not an absolute path; begin it with /")


def _within(agent: AgentConfig, key: str, least: int, most: int) -> Iterator[Problem]:
    value: int = getattr(agent, key)
    if not least <= value <= most:
        yield Problem(("agent", key), f"{value} is out of range; use {least} to {most}")


def _lowest_bit(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _is_endpoint(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    if (
        not colon
        or not port.isascii()
        or not port.isdigit()
        or len(port) > 5
        or not 0 < int(port) < 65536
    ):
        return False
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        return ip_address(host.strip("[]")).version == (6 if bracketed else 4)
    except ValueError:
        return False


def _classes(config: Config) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    prefixes = {
        label: with_room_for_classes(config, each)
        for label, each in {**config.prefixes, **all_as_prefixes(config)}.items()
    }
    for name, section in config.classes.items():
        yield from check_name("classes", name)
        if name == "unclassified":
            yield Problem(
                ("classes", name),
                "this is the name of sockets without a class; use [unclassified] for them, or"
                " another name",
            )
        if section.default is not None and section.default not in section.allow:
            yield Problem(
                ("classes", name, "default"),
                f"the default {section.default} is not allowed to the class; add it to allow, or"
                " choose another default",
            )
        if section.strict and not section.allow:
            yield Problem(
                ("classes", name, "strict"),
                "a strict class that is allowed no type could use no address at all; name types in"
                " allow, or leave strict out",
            )
        yield from _caps(name, section)
        yield from check_lifetimes(("classes", name), section, prefixes, config.uplinks)
        for pattern in section.cgroups:
            where = ("classes", name, "cgroups")
            if reason := _bad_pattern(pattern, config.agent.cgroup):
                yield Problem(where, f"the cgroup {pattern!r} {reason}")
            key = pattern.strip("/")
            if key not in owners:
                owners[key] = name
                continue
            other = "twice in this class" if owners[key] == name else f"also in {owners[key]!r}"
            yield Problem(
                where, f"the cgroup {pattern!r} stands {other}; a cgroup has one class, keep one"
            )


def _caps(name: str, section: ClassConfig) -> Iterator[Problem]:
    for word, cap in section.caps.items():
        where = ("classes", name, "caps", word)
        if word not in section.allow:
            yield Problem(
                where, f"{word} is not allowed to the class; add it to allow, or leave the cap out"
            )
        if cap.sockets is None and cap.requests_per_minute is None:
            yield Problem(where, "this caps nothing; say sockets, requests_per_minute or both")
        for key, most in (("sockets", 2**32 - 1), ("requests_per_minute", MOST_REQUESTS)):
            value: int | None = getattr(cap, key)
            if value is not None and not 1 <= value <= most:
                yield Problem(
                    (*where, key),
                    f"{value} is out of range; use 1 to {most}, or take the type out of allow",
                )


def _bad_pattern(pattern: str, attach_point: str) -> str | None:
    if printed := _PRINTED_BY_PROC.match(pattern):
        return (
            "is as /proc/PID/cgroup has it; write it as below the attach point:"
            f' "{pattern[printed.end() :].strip("/") or "/"}"'
        )
    if (below := _below(pattern, attach_point)) is not None:
        if attach_point and _below(pattern, attach_point, ()) is None:
            return f"is outside of {attach_point}, the attach point; name one below it"
        return (
            f'is where the cgroup is mounted; write it as below the attach point: "{below or "/"}"'
        )
    parts = pattern.strip("/").split("/")
    if "\0" in pattern or "\n" in pattern:
        return "holds a character that no cgroup's name can have; leave it out"
    if any(len(os.fsencode(part)) > _LONGEST_NAME and not is_glob(part) for part in parts):
        return f"has a name of more than {_LONGEST_NAME} bytes, which no cgroup has; shorten it"
    if "**" in parts:
        return 'holds "**"; a wildcard stays within one component, write one * for each level'
    if not pattern or (pattern != "/" and not all(parts)) or {".", ".."} & set(parts):
        return (
            "is not a path; write it as below the attach point, e.g."
            ' "system.slice/ssh.service" or "user.slice/*/app.slice"'
        )
    return None


def _below(pattern: str, attach_point: str, mounted: tuple[str, ...] = _MOUNTED) -> str | None:
    """The form that matches of a path from the root of the file system, as `classes` prints it."""
    parts = [part for part in pattern.split("/") if part]
    for folder in (attach_point, *mounted):
        above = [part for part in folder.split("/") if part]
        if above and parts[: len(above)] == above:
            return "/".join(parts[len(above) :])
    return None
