"""exec: a command in an application class, without touching its unit or its configuration."""

import logging
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from odm_agent import isolated
from odm_agent.cli import complete
from odm_agent.cli.command import identity_of, run_command
from odm_agent.cli.options import ConfigOption, SocketOption, TypeOption, parse_type
from odm_agent.cli.scoped import scope_cgroup, systemd_scope
from odm_agent.cli.where import locate
from odm_agent.control.answers import Awaited, Status
from odm_agent.control.client import ANSWER_TIMEOUT_S, ControlClient
from odm_agent.control.scopes import PARENT, Scope

log = logging.getLogger(__name__)

#: Exists where systemd is the init system (sd_booted(3)); it then is the cgroup tree's one writer.
SYSTEMD_MARK = Path("/run/systemd/system")


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        "exec",
        context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    )(exec_)


def exec_(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="What to run.")],
    class_name: Annotated[
        str,
        typer.Option(
            "--class",
            "-C",
            metavar="CLASS",
            help="The application class.",
            autocompletion=complete.classes,
        ),
    ],
    type_word: TypeOption = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", "-u", help="Run it as this user (name or number).", show_default=False
        ),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait",
            metavar="SECONDS",
            min=0.1,
            max=3600,
            help="First wait so long until there is an address of the type.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    socket: SocketOption = None,
    in_scope: Annotated[bool, typer.Option("--in-scope", hidden=True)] = False,
) -> None:
    """Run a command in a class; its sockets get the type, or else the class's default type.

    Returns the command's exit code, 128 + N if signal N ended it, 126 or 127 if it could not be
    started.
    """
    type_ = parse_type(type_word)
    identity = identity_of(user)
    where = locate(config, socket)
    scope = Scope(class_name, type_, os.getpid())
    with where.client() as client:
        attached = Path(client.ask("status", Status).cgroup)
        if not in_scope and wants_systemd_scope(attached):
            arguments = own_arguments(where.socket, class_name, type_word, user, wait)
            line = systemd_command(scope, arguments, command)
            log.debug("entering a systemd scope", extra={"command": shlex.join(line)})
            os.execv(isolated.program(line[0]), line)
        enter = systemd_scope if in_scope else scope_cgroup
        with enter(client, attached / PARENT, scope) as cgroup:
            if wait is not None:
                await_address(where.socket, scope, wait)
            # Nothing is asked while the command runs: it may run for days.
            client.close()
            code = run_command(command, cgroup, identity)
    raise typer.Exit(code)


def wants_systemd_scope(attached: Path, mark: Path = SYSTEMD_MARK) -> bool:
    """Whether systemd must make the cgroup: it runs, and we are attached above all its units."""
    from odm_agent.kernel.cgroups import find_root

    return mark.is_dir() and attached == find_root()


def await_address(socket: Path, scope: Scope, seconds: float) -> None:
    """Wait until sockets of the scope are given an address; ControlError: there is none in time."""
    arguments = {"class": scope.class_name, "type": scope.type.word if scope.type else None}
    with ControlClient(socket, timeout_s=seconds + ANSWER_TIMEOUT_S) as client:
        awaited = client.ask("await", Awaited, seconds=seconds, **arguments)
    log.debug("an address is there", extra={"address": awaited.address})


def own_arguments(
    socket: Path, class_name: str, type_: str | None, user: str | None, wait: float | None = None
) -> list[str]:
    """The options with which `exec` calls itself inside a scope."""
    options = ["--in-scope", "--socket", str(socket), "--class", class_name]
    if type_ is not None:
        options += ["--type", type_]
    if user is not None:
        options += ["--user", user]
    if wait is not None:
        options += ["--wait", str(wait)]
    return options


def systemd_command(scope: Scope, arguments: list[str], command: list[str]) -> list[str]:
    """The `systemd-run` call that repeats this `exec` inside a transient scope.

    systemd-run becomes its command, so the process id in the scope's name stays true.
    """
    return [
        "systemd-run",
        "--scope",
        "--quiet",
        "--collect",
        f"--slice={PARENT}",
        f"--unit={scope.name}",
        "--",
        *isolated.command("odm_agent", "exec", *arguments),
        *("--", *command),
    ]
