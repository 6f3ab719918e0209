"""The nouns: what is, read from the running agent."""

from typing import Annotated

import typer

from odm_agent.cli.delegations import delegation_words
from odm_agent.cli.enforced import pinned_sentence
from odm_agent.cli.options import (
    ClassOption,
    ConfigOption,
    JsonOption,
    SocketOption,
    TypeOption,
    parse_type,
)
from odm_agent.cli.output import moment, print_facts, print_json, print_list, say
from odm_agent.cli.where import locate
from odm_agent.control.answers import (
    AddressView,
    CapView,
    ClassView,
    LimitView,
    PrefixView,
    SocketView,
    Status,
    WanderView,
)
from odm_agent.control.client import AgentNotRunning
from odm_agent.exits import ExitCode
from odm_agent.text import bytes_words, duration_words

SOCKETS_NOTE = (
    "Listed by sock_diag, which knows no TCP socket that is only bound (before Linux 6.8) and no "
    "UDP socket without a port."
)

PREFIX_HEADINGS = (
    *("NAME", "TYPE", "PREFIX", "PLACEMENT", "INTERFACE", "GATEWAY", "ADDRESSES"),
    *("TABLE", "MARK", "STATE", "REASON"),
)


CLASS_HEADINGS = (
    *("NAME", "MODE", "ALLOW", "DEFAULT", "STRICT", "ON FAILURE"),
    *("REFUSE", "CAPS", "LIFETIMES", "SOCKETS", "CGROUPS"),
)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (status, prefixes, addresses, sockets, classes):
        app.command()(command)


def status(
    config: ConfigOption = None, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """Show whether the agent runs, and what it has in force."""
    where = locate(config, socket)
    try:
        with where.client() as client:
            found = client.ask("status", Status)
    except AgentNotRunning as error:
        say(f"odm-agent: {error}", err=True)
        say(pinned_sentence(where.pin_dir, where.cgroup), err=True)
        raise typer.Exit(ExitCode.NOT_RUNNING) from error
    if json:
        print_json(found)
        return
    print_facts(
        [
            ("version", f"{found.version} (map ABI {found.abi})"),
            ("running", f"since {moment(found.since)}, pid {found.pid}"),
            ("configuration", f"{found.config}, loaded {moment(found.config_loaded)}"),
            ("last reload", f"REFUSED: {found.reload_error}" if found.reload_error else "ok"),
            ("namespace", f"cookie {found.namespace_cookie}"),
            ("attached to", found.cgroup),
            ("pinned in", f"{found.pin_dir} ({found.programs} programs)"),
            ("prefixes", found.prefixes),
            ("addresses", found.addresses),
            ("classes", found.classes),
            *(("wandering", _wandering_words(each)) for each in found.wandering),
            *(
                ("delegation", words)
                for each in found.delegations
                for words in delegation_words(each)
            ),
            *(("ALARM", alarm) for alarm in found.alarms),
        ]
    )


def _wandering_words(view: WanderView) -> str:
    what = f"{view.type}, {view.family}, preference {view.preference}"
    if view.first is None:
        return f"{what}: none can serve"
    behind = f", behind it {', '.join(view.behind)}" if view.behind else ""
    return f"{what}: {view.first} first for {duration_words(view.seconds_left)}{behind}"


def prefixes(
    config: ConfigOption = None,
    socket: SocketOption = None,
    type_word: TypeOption = None,
    json: JsonOption = False,
) -> None:
    """List the typed prefixes."""
    wanted = parse_type(type_word)
    with locate(config, socket).client() as client:
        found = client.ask("prefixes", list[PrefixView])
    found = [view for view in found if wanted is None or view.type == wanted.word]
    print_list(
        found,
        PREFIX_HEADINGS,
        lambda view: (
            *(view.name, view.type, view.prefix, view.placement, view.interface, view.gateway),
            *(f"{view.addresses}/{view.pool}", view.table),
            "by class" if view.by_class else f"{view.mark:#x}",
            *(view.state, view.reason),
        ),
        empty="no typed prefixes",
        json=json,
    )


def addresses(
    config: ConfigOption = None,
    socket: SocketOption = None,
    type_word: TypeOption = None,
    json: JsonOption = False,
) -> None:
    """List the typed addresses, with how many sockets use each."""
    wanted = parse_type(type_word)
    with locate(config, socket).client() as client:
        found = client.ask("addresses", list[AddressView])
    found = [view for view in found if wanted is None or view.type == wanted.word]
    print_list(
        found,
        ("ADDRESS", "TYPE", "PREFIX", "CLASS", "INTERFACE", "STATE", "SOCKETS"),
        lambda view: (
            *(view.address, view.type, view.prefix, view.class_ or "", view.interface),
            *(view.state, view.sockets),
        ),
        empty="no typed addresses",
        json=json,
    )


def sockets(
    config: ConfigOption = None,
    socket: SocketOption = None,
    class_name: ClassOption = None,
    type_word: TypeOption = None,
    pid: Annotated[
        int | None,
        typer.Option(
            "--pid", "-p", min=1, help="Only sockets of this process.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the live sockets with their class, type and source."""
    wanted = parse_type(type_word)
    with locate(config, socket).client() as client:
        found = client.ask("sockets", list[SocketView])
    found = [
        view
        for view in found
        if (class_name is None or view.class_ == class_name)
        and (wanted is None or view.type == wanted.word)
        and (pid is None or view.pid == pid)
    ]
    print_list(
        found,
        ("COOKIE", "PROCESS", "CLASS", "TYPE", "PROTO", "STATE", "SOURCE", "DESTINATION", "CGROUP"),
        lambda view: (
            *(view.cookie, f"{view.process}[{view.pid}]" if view.pid else None, view.class_),
            *(view.type, view.protocol, view.state, view.source, view.destination),
            view.cgroup,
        ),
        empty="no such sockets",
        json=json,
    )
    if not json:
        say(SOCKETS_NOTE, err=True)


def classes(
    config: ConfigOption = None, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """List the application classes with the cgroups that they match now."""
    with locate(config, socket).client() as client:
        found = client.ask("classes", list[ClassView])
    print_list(
        found,
        CLASS_HEADINGS,
        lambda view: (
            *(view.name, view.mode, view.allow, view.default, view.strict, view.on_failure),
            *(view.refuse, [_cap_words(cap) for cap in view.caps]),
            *([_limit_words(limit) for limit in view.lifetimes], view.sockets, view.cgroups),
        ),
        empty="no classes",
        json=json,
    )


def _cap_words(cap: CapView) -> str:
    words = [cap.type]
    if cap.sockets is not None:
        words.append(f"{cap.live}/{cap.sockets}")
    if cap.requests_per_minute is not None:
        words.append(f"{cap.requests_per_minute}/min")
    return " ".join(words)


def _limit_words(limit: LimitView) -> str:
    words = [limit.type]
    if limit.preferred_seconds is not None:
        words.append(duration_words(limit.preferred_seconds))
    if limit.budget_bytes is not None:
        words.append(bytes_words(limit.budget_bytes))
    return " ".join(words)
