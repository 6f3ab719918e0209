"""docs/cli.md and the program say the same; completion offers what there is."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import typer.main

from odm_agent.cli import complete
from odm_agent.cli.app import build
from odm_agent.cli.doctor.findings import Finding
from odm_agent.cli.explain import Explanation
from odm_agent.control import answers
from odm_agent.exits import EPILOG, ExitCode
from tests.unit.cli.conftest import Cli, FakeAgent

PAGE = Path(__file__).parents[3] / "docs/cli.md"
APP: Any = typer.main.get_command(build())
#: What --json prints, by command.
SHAPES: dict[str, type[msgspec.Struct]] = {
    "status": answers.Status,
    "prefixes": answers.PrefixView,
    "addresses": answers.AddressView,
    "sockets": answers.SocketView,
    "classes": answers.ClassView,
    "lifetimes": answers.LeaseView,
    "rotate": answers.Rotation,
    "usage": answers.UsageView,
    "events": answers.EventView,
    "reload": answers.ReloadResult,
    "upgrade": answers.Upgrade,
    "check": Finding,
    "explain": Explanation,
}


def sections() -> dict[str, str]:
    """The text of each command's section."""
    parts = re.split(r"^## (.*)$", PAGE.read_text(), flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {
        heading.removeprefix("odm-agent "): text
        for heading, text in pairs
        if heading.startswith("odm-agent ")
    }


def parameters(command: str) -> list[Any]:
    return [each for each in APP.commands[command].params if not getattr(each, "hidden", False)]


def test_every_command_has_its_section_and_no_other() -> None:
    assert sorted(sections()) == sorted(APP.commands)


@pytest.mark.parametrize("command", sorted(APP.commands))
def test_every_option_is_described_and_no_other(command: str) -> None:
    options = {
        spelling
        for each in parameters(command)
        for spelling in each.opts
        if spelling.startswith("-")
    }
    items = [line for line in sections()[command].splitlines() if line.startswith("- ")]
    described = {
        spelling
        for line in items
        for spelling in re.findall(r"`(--?[a-z-]+|-C)", line.partition(":")[0])
    }
    assert described == options - {"-h", "--help"}


@pytest.mark.parametrize("command", ["check", "explain", "exec", "rotate"])
def test_every_argument_is_described(command: str) -> None:
    for each in parameters(command):
        if not each.opts[0].startswith("-"):
            name = each.metavar.removeprefix("-- ")
            assert f"\n- `{name}`" in sections()[command]


@pytest.mark.parametrize("command", SHAPES)
def test_every_json_field_is_named(command: str) -> None:
    (line,) = [line for line in sections()[command].splitlines() if line.startswith("- `--json`:")]
    # What stands in brackets explains a field, or lists its values.
    named = re.findall(r"`([a-z_]+)`", re.sub(r"\([^)]*\)", "", line.partition(":")[2]))
    assert named == [field.encode_name for field in msgspec.structs.fields(SHAPES[command])]


def test_the_exit_codes_are_those_of_the_program() -> None:
    rows = re.findall(r"^\| (\d) \| (.*) \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert rows == [(str(code.value), code.meaning) for code in ExitCode]


def test_the_help_ends_with_the_exit_codes(cli: Cli) -> None:
    shown = " ".join(cli("--help").stdout.split())
    assert EPILOG in shown
    assert "3 the agent is not running" in EPILOG


def test_every_help_can_be_shown(cli: Cli) -> None:
    assert {cli(command, "-h").exit_code for command in APP.commands} == {0}


def test_completion_of_types_and_classes(agent: FakeAgent) -> None:
    assert complete.types("f") == ["fixed"]
    assert len(complete.types("")) == 4
    context = SimpleNamespace(params={"socket": agent.socket})
    assert complete.classes(context, "") == [
        ("ssh", "allow: fixed, session-lasting"),
        ("web", "allow: nothing"),
    ]
    assert [name for name, _ in complete.classes(context, "w")] == ["web"]


def test_completion_without_agent_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    assert complete.classes(SimpleNamespace(params={"socket": tmp_path / "none"}), "") == []


def test_the_shell_gets_class_names_from_the_agent(
    agent: FakeAgent, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bash asks: through the environment, with the words typed so far."""
    words = f"odm-agent sockets --socket {agent.socket} --class "
    monkeypatch.setenv("_ODM_AGENT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", "5")
    assert cli().stdout.split() == ["ssh", "web"]
