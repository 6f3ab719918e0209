"""explain: which source a socket would get, and why."""

import errno
import os
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from odm_agent.cli.enforced import pinned_sentence
from odm_agent.cli.options import ConfigOption, JsonOption, SocketOption, TypeOption, parse_type
from odm_agent.cli.output import print_facts, print_json
from odm_agent.cli.probe import Outcome, Question, ask
from odm_agent.cli.where import Where, locate
from odm_agent.control.answers import AddressView, Membership, PrefixView, Status
from odm_agent.control.client import AgentNotRunning, ControlClient
from odm_agent.text import printable

#: No packet leaves, so any port does; this one is "discard".
DEFAULT_PORT = 9
ASKED = (
    "The kernel was asked: a child process joined the cgroup and connected a UDP socket "
    "(no packet leaves)."
)
#: What asking by a UDP socket doesn't show.
UNSERVED = (
    "Ping and raw sockets (ping, traceroute, mtr) and further MPTCP subflows are given no source: "
    "they leave from the host's ordinary address, or in a strict class not at all."
)
UNCLASSIFIED = "unclassified"

OPTION_MEANINGS = {
    errno.EACCES: "the class may not use this type, or the cgroup is in no class",
    errno.EADDRNOTAVAIL: "no address of this type is there now",
    errno.EDQUOT: "the class asks for this type too often (`odm-agent classes` shows its caps)",
    errno.ENOPROTOOPT: "nothing here knows the option: the programs are not attached",
}
CONNECT_MEANINGS = {
    errno.EACCES: "the class may not use the source that the socket would have",
    errno.EPERM: "a program refused the connect (ours answers EACCES: perhaps somebody else's)",
    errno.EADDRNOTAVAIL: "no address of the type and family is there now",
    errno.EDQUOT: "the class is at a cap for the type (`odm-agent classes` shows how far)",
    errno.ENETUNREACH: "no route to the destination from there",
    errno.EHOSTUNREACH: "no route to the destination from there",
}


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What `explain --json` prints. `errno` and `meaning` are empty when the connect worked."""

    cgroup: str
    #: None: not known, since the agent does not run.
    class_: str | None = msgspec.field(name="class")
    asked_type: str | None
    destination: str
    source: str | None = None
    #: The type of `source`: "untyped" outside all typed prefixes, None if not known.
    type: str | None = None
    prefix: str | None = None
    errno: str = ""
    meaning: str = ""
    notes: list[str] = []


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(explain)


def explain(
    target: Annotated[
        str,
        typer.Argument(
            metavar="PID|CGROUP",
            help="A process, or a cgroup (absolute, or below the agent's attach point).",
        ),
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT.")
    ],
    type_word: TypeOption = None,
    config: ConfigOption = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Show which source address a socket would get there, and why, by asking the kernel."""
    type_ = parse_type(type_word)
    host, port = parse_destination(destination)
    where = locate(config, socket)
    with where.client() as client:
        agent = _status(client)
        cgroup, namespace = find_target(target, agent)
        outcome = ask(Question(cgroup, namespace, host, port, type_))
        member = _membership(client, cgroup) if agent is not None else None
        class_ = member.class_ if member is not None else None
        notes = _notes(outcome, agent, class_, where)
        if agent is not None and member is not None and ip_address(host).version == 6:
            notes += _to_be_asked_for(outcome, agent, type_.word if type_ else member.default)
        found = Explanation(
            cgroup=printable(str(cgroup)),
            class_=class_,
            asked_type=type_.word if type_ is not None else None,
            destination=destination,
            notes=notes,
        )
        found = _with_outcome(found, outcome, client if agent is not None else None)
    if json:
        print_json(found)
        return
    print_facts(
        [
            ("cgroup", found.cgroup),
            ("class", found.class_ or "not known"),
            ("asked type", found.asked_type or "none (the class's default)"),
            ("destination", found.destination),
            ("source", found.source or f"none: {found.errno}, {found.meaning}"),
            ("type", found.type),
            ("prefix", found.prefix),
            *(("note", note) for note in found.notes),
        ]
    )


def parse_destination(text: str) -> tuple[str, int]:
    """Address and port; a usage error with advice for names and anything else."""
    host, port = text, str(DEFAULT_PORT)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest.removeprefix(":") if rest else port
        if not bracket or (rest and not rest.startswith(":")):
            raise typer.BadParameter(f"{text!r}: write an IPv6 address as [2001:db8::1]:443")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ip_address(host)
    except ValueError:
        raise typer.BadParameter(
            f"{host!r} is no address, and no names are looked up here (the answer would depend "
            f"on who asks); find its addresses with `getent ahosts {host}` and give one of them"
        ) from None
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise typer.BadParameter(f"{port!r} is no port; give 1 to 65535, or none")
    return host, int(port)


def find_target(target: str, agent: Status | None) -> tuple[Path, Path | None]:
    """The cgroup to ask from, and the network namespace (None: that of this command)."""
    from odm_agent.kernel.cgroups import current_cgroup, find_root

    if target.isdecimal():
        process = Path("/proc") / target
        if not process.is_dir():
            raise typer.BadParameter(f"there is no process {target}")
        return current_cgroup(int(target)), process / "ns/net"
    base = Path(agent.cgroup) if agent is not None else find_root()
    cgroup = base / target
    if not (cgroup / "cgroup.procs").is_file():
        raise typer.BadParameter(
            f"{printable(str(cgroup))} is no cgroup v2; give a path below {base}, or a PID"
        )
    namespace = Path(f"/proc/{agent.pid}/ns/net") if agent is not None else None
    return Path(os.path.normpath(cgroup)), namespace


def _status(client: ControlClient) -> Status | None:
    try:
        return client.ask("status", Status)
    except AgentNotRunning:
        return None


def _membership(client: ControlClient, cgroup: Path) -> Membership:
    from odm_agent.kernel.cgroups import cgroup_id

    # By its number, for a name may be no UTF-8, which JSON can't say.
    return client.ask("resolve", Membership, cgroup_id=cgroup_id(cgroup))


def _to_be_asked_for(outcome: Outcome, agent: Status, type_word: str | None) -> Iterator[str]:
    """Where the network can be asked for a type of which no address is there now."""
    if outcome.source is not None or outcome.error != errno.EADDRNOTAVAIL:
        return
    for delegation in agent.delegations:
        for each in delegation.types:
            if each.type == type_word:
                why = each.trouble or delegation.trouble
                last = f"; the last time it gave none: {why}" if why else ""
                yield (
                    f"The network on {delegation.interface} can be asked for a prefix that is"
                    f" {type_word} (delegation {delegation.name!r}, {each.state}){last}."
                )


def _notes(outcome: Outcome, agent: Status | None, class_: str | None, where: Where) -> list[str]:
    notes = [ASKED]
    if class_ not in (None, UNCLASSIFIED):
        notes.append(UNSERVED)
    if agent is None:
        notes.append("The agent does not run: class, type and prefix are not known.")
        notes.append(pinned_sentence(where.pin_dir, where.cgroup))
    elif outcome.cookie != agent.namespace_cookie:
        notes.append("This is not the agent's network namespace: sockets here are left alone.")
    if not outcome.supported:
        notes.append("The kernel dropped the type: the programs do not act on this socket.")
    return notes


def _with_outcome(
    found: Explanation, outcome: Outcome, client: ControlClient | None
) -> Explanation:
    """`found` with the source and what it belongs to, or with what was refused."""
    if outcome.source is None:
        meanings = OPTION_MEANINGS if outcome.step == "option" else CONNECT_MEANINGS
        word = errno.errorcode.get(outcome.error, str(outcome.error))
        meaning = meanings.get(outcome.error, os.strerror(outcome.error))
        call = "setsockopt" if outcome.step == "option" else "connect"
        return msgspec.structs.replace(found, errno=word, meaning=f"{call}: {meaning}")
    type_, prefix = _origin(client, outcome) if client is not None else (None, None)
    return msgspec.structs.replace(found, source=str(outcome.source), type=type_, prefix=prefix)


def _origin(client: ControlClient, outcome: Outcome) -> tuple[str | None, str | None]:
    """Type and prefix of the source, by the agent's tables; the type is None where they don't say:
    somebody else's address on the link of a typed prefix. One that is everybody's has a type where
    the socket has the prefix's mark."""
    source = outcome.source
    assert source is not None
    prefixes = {view.name: view for view in client.ask("prefixes", list[PrefixView])}
    for address in client.ask("addresses", list[AddressView]):
        if ip_address(address.address) == source:
            prefix = prefixes.get(address.prefix)
            if prefix is not None and prefix.shared and outcome.mark != prefix.mark:
                return "untyped", None
            return address.type, address.prefix
    for prefix in prefixes.values():
        if prefix.prefix is not None and source in ip_network(prefix.prefix):
            return (prefix.type if prefix.placement == "delegated" else None), prefix.name
    return "untyped", None
