"""run, reload, detach, version: what they hand on, and what they return."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import odm_agent.agent
from odm_agent import __version__, isolated
from odm_agent.config.schema import AgentConfig
from odm_agent.control.answers import ReloadResult, Upgrade
from odm_agent.core.errors import ConfigError, DatapathError
from tests.unit.cli.conftest import Cli, FakeAgent


def test_reload_says_what_was_loaded_and_the_warnings(agent: FakeAgent, cli: Cli) -> None:
    agent.answers["reload"] = ReloadResult(config="/x.toml", warnings=["/x.toml:7: no eth9"])
    result = cli("reload", "--socket", agent.socket)
    assert result.exit_code == 0
    assert result.stdout == "reloaded /x.toml\n"
    assert result.stderr == "warning: /x.toml:7: no eth9\n"


def test_a_refused_reload_exits_4_with_all_reasons(agent: FakeAgent, cli: Cli) -> None:
    agent.answers["reload"] = ConfigError("/x.toml:3: bad\n/x.toml:9: worse")
    result = cli("reload", "--socket", agent.socket)
    assert result.exit_code == 4
    assert "/x.toml:3: bad" in result.stderr
    assert "/x.toml:9: worse" in result.stderr


def test_run_becomes_the_agent(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(isolated, "become", lambda *line: started.append(line))
    assert cli("run", "-c", tmp_path / "x.toml").exit_code == 0
    assert cli("run").exit_code == 0
    default = "/etc/odm-agent/odm-agent.toml"
    assert started == [
        ("odm_agent.daemon", str(tmp_path / "x.toml")),
        ("odm_agent.daemon", default),
    ]


def test_run_with_a_bad_configuration_exits_4(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    config.write_text("[agent]\nmark_mask = 0\n")
    line = [sys.executable, "-m", "odm_agent", "run", "-c", str(config)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert f"odm-agent: {config}:2:" in done.stderr


@pytest.fixture
def detached(monkeypatch: pytest.MonkeyPatch) -> list[AgentConfig]:
    """What detach was called with."""
    calls: list[AgentConfig] = []

    def detach(agent: AgentConfig) -> Iterator[str]:
        calls.append(agent)
        if agent.pin_dir == "/broken":
            raise DatapathError("removing the pins: no")
        if agent.pin_dir != "/empty":
            yield "detached the programs"

    monkeypatch.setattr(odm_agent.agent, "detach", detach)
    return calls


def test_detach_works_from_what_is_left_of_a_configuration(
    cli: Cli, tmp_path: Path, detached: list[AgentConfig]
) -> None:
    config = tmp_path / "x.toml"
    config.write_text(
        '[agent]\npin_dir = "/p"\nprotocol = 7\nmark_mask = "no"\nmad = 1\n[classes]\nx = 3\n'
    )
    assert cli("detach", "-c", config).stdout == "detached the programs\n"
    assert detached == [AgentConfig(pin_dir="/p", protocol=7)]


def test_detach_works_without_a_configuration(cli: Cli, detached: list[AgentConfig]) -> None:
    assert cli("detach", "--pin-dir", "/p").exit_code == 0
    assert "nothing to remove" in cli("detach", "--pin-dir", "/empty").stdout
    assert [each.pin_dir for each in detached] == ["/p", "/empty"]


def test_detach_refuses_two_answers_to_one_question(
    cli: Cli, tmp_path: Path, detached: list[AgentConfig]
) -> None:
    config = tmp_path / "x.toml"
    assert cli("detach", "-c", config).exit_code == 2
    config.touch()
    assert cli("detach", "-c", config, "--pin-dir", "/p").exit_code == 2
    assert detached == []


def test_a_failing_detach_exits_1(cli: Cli, detached: list[AgentConfig]) -> None:
    result = cli("detach", "--pin-dir", "/broken")
    assert result.exit_code == 1
    assert result.stderr == "odm-agent: removing the pins: no\n"


@pytest.mark.parametrize(
    ("done", "printed"),
    [
        (Upgrade(agent="running"), ["nothing to do"]),
        (
            Upgrade(agent="stopped", programs=11, new_maps=["odm_a"], removed_maps=["odm_b"]),
            ["replaced 11 programs", "new maps: odm_a", "removed maps: odm_b", "start it again"],
        ),
        (Upgrade(agent="none", programs=11), ["replaced 11", "no agent runs"]),
    ],
)
def test_upgrade_says_what_it_replaced(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: Upgrade, printed: list[str]
) -> None:
    asked: list[tuple[Path, bool]] = []

    def upgrade(path: Path, *, forget_sockets: bool) -> Upgrade:
        asked.append((path, forget_sockets))
        return done

    monkeypatch.setattr(odm_agent.agent, "upgrade", upgrade)
    result = cli("upgrade", "-c", tmp_path / "x.toml", "--forget-sockets")
    assert all(line in result.stdout for line in printed), result.stdout
    assert json.loads(cli("upgrade", "-c", tmp_path / "x.toml", "--json").stdout)["agent"] == (
        done.agent
    )
    assert asked == [(tmp_path / "x.toml", True), (tmp_path / "x.toml", False)]


def test_version(cli: Cli) -> None:
    assert cli("version").stdout == f"odm-agent {__version__}\n"
    assert json.loads(cli("version", "--json").stdout) == {"version": __version__}
