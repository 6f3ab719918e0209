"""Exit codes, and how errors become them."""

from enum import IntEnum

from odm_agent.core.errors import ConfigError, OdmError


class ExitCode(IntEnum):
    """What the exit code says. `exec` also returns its command's own (126 to 128 + signal)."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_RUNNING = 3
    CONFIG_REFUSED = 4
    REQUIREMENTS_MISSING = 5

    @property
    def meaning(self) -> str:
        """The line that the help and docs/cli.md show."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "it worked",
    ExitCode.FAILURE: "it failed; the reason is on standard error",
    ExitCode.USAGE: "the command line was not understood",
    ExitCode.NOT_RUNNING: "the agent is not running",
    ExitCode.CONFIG_REFUSED: "the configuration was refused",
    ExitCode.REQUIREMENTS_MISSING: "this host lacks something that the agent needs (check)",
}

EPILOG = "Exit codes: " + "; ".join(f"{code.value} {code.meaning}" for code in ExitCode) + "."


def exit_code(error: OdmError) -> ExitCode:
    """The exit code for an error that ends a command."""
    from odm_agent.control.client import AgentNotRunning

    if isinstance(error, AgentNotRunning):
        return ExitCode.NOT_RUNNING
    if isinstance(error, ConfigError):
        return ExitCode.CONFIG_REFUSED
    return ExitCode.FAILURE
