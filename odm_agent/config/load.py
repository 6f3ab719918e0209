"""Reads odm-agent.toml: from text to a checked `Config`, or everything that is wrong with it."""

import codecs
import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from odm_agent.config.check import check
from odm_agent.config.check_host import host_errors, host_warnings
from odm_agent.config.file import contents
from odm_agent.config.lines import line_of, lines_of
from odm_agent.config.problems import Problem
from odm_agent.config.schema import (
    AgentConfig,
    ClassConfig,
    Config,
    DelegationConfig,
    PrefixConfig,
    UnclassifiedConfig,
    UplinkConfig,
)
from odm_agent.core.errors import ConfigError
from odm_agent.core.host import HostState

_Section = TypeVar("_Section", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A line (from 1), and what is wrong there and what to do."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Review:
    """How a configuration fits a host: with errors it must not run, warnings are for people."""

    errors: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


def load(path: Path) -> Config:
    """The configuration at `path`; ConfigError names all that is wrong with it."""
    return parse(read(path), path)


def read(path: Path) -> str:
    """The text of a configuration file; raises ConfigError."""
    try:
        text = contents(path).decode()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the configuration: {error.strerror}; name another file with"
            " --config, or make this one readable"
        ) from error
    except UnicodeDecodeError as error:
        marked = error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "UTF-16 or UTF-32, as its byte order mark (BOM) says" if marked else "not UTF-8"
        raise ConfigError(
            f"{path}: the configuration is {what}; save it as UTF-8 without a BOM"
        ) from error
    if "\0" in text:
        raise ConfigError(
            f"{path}: the configuration holds zero bytes, as UTF-16 does; save it as UTF-8"
        )
    if text.startswith("\ufeff"):
        raise ConfigError(
            f"{path}:1: the file begins with a byte order mark (BOM), which TOML doesn't know; save"
            " it as UTF-8 without a BOM"
        )
    return text


def parse(text: str, path: Path) -> Config:
    """The configuration in `text`; `path` is only for messages. Raises ConfigError, one finding a
    line: FILE:LINE: what is wrong; what to do."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of 5000 digits, a thousand brackets
        raise refusal(path, [_syntax(str(error))]) from error
    problems: list[Problem] = []
    config = Config(
        agent=_section(raw, ("agent",), AgentConfig, problems) or AgentConfig(),
        unclassified=_section(raw, ("unclassified",), UnclassifiedConfig, problems)
        or UnclassifiedConfig(),
        classes=_named(raw, "classes", ClassConfig, problems),
        prefixes=_named(raw, "prefixes", PrefixConfig, problems),
        delegations=_named(raw, "delegations", DelegationConfig, problems),
        uplinks=_named(raw, "uplinks", UplinkConfig, problems),
    )
    problems += [_unknown((), key, Config) for key in raw.keys() - set(Config.__struct_fields__)]
    problems += check(config)
    if problems:
        raise refusal(path, _located(problems, text))
    return config


def review(config: Config, host: HostState, text: str = "") -> Review:
    """How a checked configuration fits the host; `text` is what it was read from, for the lines."""
    return Review(
        tuple(_located(host_errors(config, host), text)),
        tuple(_located(host_warnings(config, host), text)),
    )


def refusal(path: Path, findings: Iterable[Finding]) -> ConfigError:
    """The error that says all findings, a line each."""
    return ConfigError("\n".join(f"{path}:{f.line}: {f.message}" for f in sorted(findings)))


def _located(problems: Iterable[Problem], text: str) -> list[Finding]:
    lines = lines_of(text) if text else {}
    found = {Finding(line_of(lines, p.where), f"{_called(p.where)}{p.message}") for p in problems}
    return sorted(found)


def _called(where: tuple[str, ...]) -> str:
    return f"{'.'.join(where)}: " if where else ""


def _syntax(message: str) -> Finding:
    at = re.search(r"at line (\d+)", message)
    what = re.sub(r" \(at .*\)$", "", message)
    return Finding(int(at.group(1)) if at else 1, f"this is not TOML: {what}; correct the syntax")


def _named(
    raw: dict[str, object], key: str, kind: type[_Section], problems: list[Problem]
) -> dict[str, _Section]:
    sections = raw.get(key, {})
    if not isinstance(sections, dict):
        problems.append(Problem((key,), f"this must be tables; write [{key}.NAME]"))
        return {}
    made = {name: _section(sections, (key, name), kind, problems) for name in sections}
    return {name: section for name, section in made.items() if section is not None}


def _section(
    tables: dict[str, object], where: tuple[str, ...], kind: type[_Section], problems: list[Problem]
) -> _Section | None:
    """One table as a struct, or None and a problem; msgspec names the first it meets."""
    raw = tables.get(where[-1], {})
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        problems += _structural(where, raw, str(error), kind)
        return None


def _structural(
    where: tuple[str, ...], raw: object, message: str, kind: type[msgspec.Struct]
) -> Iterator[Problem]:
    if not isinstance(raw, dict):
        yield Problem(where, f"this must be a table; write [{'.'.join(where)}]")
        return
    unknown = sorted(raw.keys() - set(kind.__struct_fields__))
    yield from (_unknown(where, key, kind) for key in unknown)
    what, _, at = message.partition(" - at ")
    if missing := re.search(r"missing required field `(\w+)`", what):
        yield Problem(where, f"the key {missing.group(1)} is missing; add it")
    elif not (unknown and "unknown field" in what):
        key = re.match(r"`?\$\.(\w+)", at)
        advice = "see docs/configuration.md for what it may be"
        lowered = what[:1].lower() + what[1:]
        yield Problem((*where, key.group(1)) if key else where, f"{lowered}; {advice}")


def _unknown(where: tuple[str, ...], key: str, kind: type[msgspec.Struct]) -> Problem:
    near = difflib.get_close_matches(key, kind.__struct_fields__, 1)
    known = ", ".join(kind.__struct_fields__)
    advice = f"did you mean {near[0]}?" if near else f"use one of {known}"
    return Problem((*where, key), f"there is no such key; {advice}")
