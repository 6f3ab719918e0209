"""check: is this host fit for the agent, and is this configuration?"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from odm_agent.cli.doctor.findings import Finding
from odm_agent.cli.options import JsonOption
from odm_agent.cli.output import print_json, print_table
from odm_agent.cli.where import DEFAULT_CONFIG, agent_settings
from odm_agent.config.schema import Config
from odm_agent.core.host import HostState
from odm_agent.exits import ExitCode


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(check)


def check(
    configuration: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="A configuration to check instead of this host.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List all that this host lacks, each with its remedy; or all that is wrong with CONFIG."""
    if configuration is None:
        found = check_host()
        bad = ExitCode.REQUIREMENTS_MISSING
    else:
        found = list(check_configuration(configuration))
        bad = ExitCode.CONFIG_REFUSED
    if json:
        print_json(found)
    else:
        print_table(
            ("CHECK", "RESULT", "WHAT", "REMEDY"),
            ((item.name, item.state, item.detail, item.remedy) for item in found),
            empty="nothing was checked",
        )
    if any(item.state == "missing" for item in found):
        raise typer.Exit(bad)


def check_host() -> list[Finding]:
    """All findings about this host, for the agent of the default configuration."""
    from odm_agent.cli.doctor import examine
    from odm_agent.cli.doctor.findings import Host

    return examine(Host(agent_settings(DEFAULT_CONFIG)))


def check_configuration(path: Path) -> Iterator[Finding]:
    """Findings about a configuration here; ConfigError with all that is wrong in itself."""
    from odm_agent.cli.doctor import sockets
    from odm_agent.config.load import parse, read, review
    from odm_agent.kernel.netlink import NetlinkKernel

    text = read(path)
    config = parse(text, path)
    kernel = NetlinkKernel(config.agent.protocol)
    try:
        host = kernel.read()
    finally:
        kernel.close()
    result = review(config, host, text)
    for error in result.errors:
        yield Finding(f"{path}:{error.line}", "missing", error.message)
    for advice in result.warnings:
        yield Finding(f"{path}:{advice.line}", "warning", advice.message)
    yield from _rule_findings(config, host)
    yield from _pattern_findings(config)
    yield from _rough_globs(config)
    yield from _port_findings(config, host)
    yield from sockets.closing(
        [("unclassified", config.unclassified.refuse)]
        + [(f"classes.{name}", section.refuse) for name, section in config.classes.items()]
    )
    size = f"{len(config.prefixes)} prefixes, {len(config.classes)} classes"
    if config.delegations:
        size += f", {len(config.delegations)} delegations"
    if not result.errors:
        yield Finding(str(path), "ok", f"would be taken: {size}")


def _port_findings(config: Config, host: HostState) -> Iterator[Finding]:
    """Whether somebody else asks where delegations are to ask."""
    from odm_agent.config.delegations import interfaces_of
    from odm_agent.kernel.dhcp_port import CLIENT, holder_of_port
    from odm_agent.prefixes.managed import fits_any

    agent = _agent(config) if config.delegations else 0
    for name, each in config.delegations.items():
        named = interfaces_of(each)
        for link in host.links.values():
            if not fits_any(named, link.name):
                continue
            if (holder := holder_of_port(link.index, agent)) is None:
                continue
            yield Finding(
                f"delegations.{name}",
                "warning",
                f"{holder} asks by DHCPv6 on {link.name} already (UDP port {CLIENT}), and only"
                " one client can",
                "stop it there (DHCPv6Client=no in systemd-networkd), or use another interface",
            )


def _agent(config: Config) -> int:
    """The running agent's pid; 0: none runs."""
    from odm_agent.control.answers import Status
    from odm_agent.control.client import ControlClient
    from odm_agent.core.errors import OdmError

    try:
        with ControlClient(Path(config.agent.socket)) as client:
            return client.ask("status", Status).pid
    except OdmError:
        return 0


def _rough_globs(config: Config) -> Iterator[Finding]:
    """Globs that only the agent can tell fully, so that new cgroups must wait for it."""
    from odm_agent.config.classes import class_policies
    from odm_agent.datapath import abi
    from odm_agent.policy.automaton import compiled

    ids = count(1)
    policies = class_policies(config, lambda name: next(ids))
    for pattern in compiled(policies.values(), abi.UNDECIDED_CLASS).undecided:
        yield Finding(
            "globs",
            "warning",
            f"{pattern} holds a set of characters that are not ASCII, or all globs together more"
            f" than {abi.GLOB_BITS} characters: a new cgroup that may fit is refused every"
            " source until the agent has looked at it, if the class fails closed",
            "name the cgroups exactly, or by simpler globs",
        )


def _rule_findings(config: Config, host: HostState) -> Iterator[Finding]:
    """Rules of others that would decide about typed packets before ours do."""
    from odm_agent.config.values import numbers_of, spans_of
    from odm_agent.core.model import Family
    from odm_agent.prefixes.precedence import Typed, obstacles

    numbers = numbers_of(config.agent)
    # Its mark and table are given to a prefix when the agent starts; the first ones stand for all.
    mark, table = numbers.mark(1), numbers.table(1)
    typed = [
        Typed(name, Family.of(spans[0]), spans, prefix.interface, mark, table)
        for name, prefix in config.prefixes.items()
        if (spans := spans_of(prefix))
    ]
    for found in obstacles(host, typed, numbers):
        yield Finding("policy rules", "warning", found.what, found.remedy)


def _pattern_findings(config: Config) -> Iterator[Finding]:
    """Cgroups that a glob matches, but that stay unclassified since not only root can name them."""
    from odm_agent.kernel.cgroups import expand, find_root

    root = Path(config.agent.cgroup) if config.agent.cgroup else find_root()
    for name, section in config.classes.items():
        matches = expand(root, section.cgroups, delegated=section.delegated)
        for refused in matches.refused:
            yield Finding(
                f"classes.{name}",
                "warning",
                f"{refused.pattern} matches {refused.path}, which is not classified: "
                f"{refused.reason}",
                "name the cgroup exactly, or set delegated = true if its owner may choose",
            )
        if not matches.cgroups and not matches.refused:
            detail = f"none of {', '.join(section.cgroups) or 'its (no) patterns'} exists now"
            yield Finding(f"classes.{name}", "warning", detail, "nothing, if they come later")
