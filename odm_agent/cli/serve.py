"""The verbs of the agent's own life: run, reload, upgrade, detach; and version."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from odm_agent import __version__, isolated
from odm_agent.cli.options import ConfigOption, JsonOption, SocketOption
from odm_agent.cli.output import print_json, say
from odm_agent.cli.where import DEFAULT_CONFIG, agent_settings, hides_pins, locate
from odm_agent.config.schema import AgentConfig
from odm_agent.control.answers import ReloadResult
from odm_agent.core.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (run, reload, upgrade, detach, version):
        app.command()(command)


def run(config: ConfigOption = None) -> None:
    """Run the agent in the foreground. Stopping it leaves everything enforced."""
    isolated.become(isolated.AGENT, str(config if config is not None else DEFAULT_CONFIG))


def reload(
    config: ConfigOption = None, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """Make the agent read its configuration again; a bad one is refused, the old one stays."""
    with locate(config, socket).client() as client:
        result = client.ask("reload", ReloadResult)
    if json:
        print_json(result)
        return
    for warning in result.warnings:
        say(f"warning: {warning}", err=True)
    say(f"reloaded {result.config}")


def upgrade(
    config: ConfigOption = None,
    forget_sockets: Annotated[
        bool,
        typer.Option(
            "--forget-sockets",
            help="Also if live sockets lose the types that they asked for.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Put this version's programs in the place of those in force, without a gap."""
    from odm_agent.agent import upgrade as upgrade_all

    path = config if config is not None else DEFAULT_CONFIG
    done = upgrade_all(path, forget_sockets=forget_sockets)
    if json:
        print_json(done)
        return
    for warning in done.warnings:
        say(f"warning: {warning}", err=True)
    if not done.programs:
        say("nothing to do: the programs in force are those of this version")
    else:
        say(f"replaced {done.programs} programs")
    for what, names in (("new", done.new_maps), ("removed", done.removed_maps)):
        if names:
            say(f"{what} maps: {', '.join(names)}")
    if done.agent == "stopped":
        say("the agent was of another version and is stopped; start it again")
    elif done.agent == "none":
        say("no agent runs; what is in force goes on without one")


def detach(
    config: ConfigOption = None,
    pin_dir: Annotated[
        Path | None,
        typer.Option(
            "--pin-dir",
            help="Where the pins are, when the configuration is gone.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Remove all that was pinned, attached or configured. Needs no agent and no configuration."""
    from odm_agent.agent import detach as detach_all

    if config is not None and pin_dir is not None:
        raise typer.BadParameter("--config already says where the pins are; give only one of both")
    if config is not None and not config.is_file():
        raise typer.BadParameter(f"{config}: no such file; leave --config out if it is gone")
    path = config if config is not None else DEFAULT_CONFIG
    if pin_dir is None and (reason := hides_pins(path)):
        raise ConfigError(
            f"{path}: {reason}: which agent is meant can't be told; say where its pins are, with"
            f" --pin-dir ({AgentConfig().pin_dir} unless it was configured)"
        )
    settings = agent_settings(path)
    if pin_dir is not None:
        settings = msgspec.structs.replace(settings, pin_dir=str(pin_dir))
    removed = list(detach_all(settings))
    for line in removed:
        say(line)
    if not removed:
        say(f"nothing was pinned in {settings.pin_dir} or configured; nothing to remove")


def version(json: JsonOption = False) -> None:
    """Show the version of this command."""
    if json:
        print_json({"version": __version__})
    else:
        say(f"odm-agent {__version__}")
