"""The typer application: its commands, and the one place where errors are printed."""

from typing import Any

import typer
from typer.core import TyperGroup

from odm_agent.cli import check, events, explain, launch, lifetimes, read, serve
from odm_agent.cli.output import say
from odm_agent.core.errors import OdmError
from odm_agent.exits import EPILOG, exit_code


class _Group(TyperGroup):
    """Prints an OdmError as it stands, and exits with its code, instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OdmError as error:
            say(f"odm-agent: {error}", err=True)
            raise typer.Exit(exit_code(error)) from error


def build() -> typer.Typer:
    """The application with all its commands."""
    app = typer.Typer(
        name="odm-agent",
        cls=_Group,
        help="Gives each socket a source address of the type it asked for (RFC 8653).",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for group in (serve, read, lifetimes, events, check, explain, launch):
        group.register(app)
    return app


def main() -> None:
    """The entry point of the `odm-agent` command."""
    build()(prog_name="odm-agent")
