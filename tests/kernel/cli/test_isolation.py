"""A folder of somebody else's, with files called as what root's programs look for, and we in it.

Each of the files leaves a trace when it is run, so that the witness is the folder itself.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from odm_agent.cli.launch import systemd_command
from odm_agent.control.scopes import Scope
from tests.lab.agent import Agent
from tests.lab.client import Kind
from tests.lab.host import CORRESPONDENT
from tests.lab.process import wait_until
from tests.lab.world import World

#: The installed command, not `python -m`: that looks into the current directory by itself.
ODM_AGENT: Final = Path(sys.executable).with_name("odm-agent")
#: What the interpreter, its start-up, our own modules and the compiler's import.
MODULES: Final = (
    *("bcc", "odm_agent", "ctypes", "argparse", "runpy", "pkgutil", "subprocess", "hashlib"),
    *("signal", "pathlib", "re", "typing", "platform", "msgspec", "pyroute2", "typer"),
    *("sitecustomize", "usercustomize"),
)
PROGRAMS: Final = (
    *("mount", "ip", "tc", "systemd-run", "ausyscall", "ldconfig", "gcc", "ld", "objdump"),
    *("clang", "python", "python3", "modprobe", "uname", "cc"),
)


class Trap:
    """A folder in which every file that is run says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run = folder / "run"
        self._run.mkdir(parents=True)
        for name in MODULES:
            text = f"open({str(self._run / name)!r}, 'w').close()\n"
            (folder / f"{name}.py").write_text(text)
            (folder / name).mkdir()
            for file in ("__init__.py", "__main__.py"):
                (folder / name / file).write_text(text)
        for name in PROGRAMS:
            (folder / name).write_text(f"#!/bin/sh\n: >'{self._run}/{name}'\nexit 1\n")
            (folder / name).chmod(0o755)
        site = folder / ".local" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
        (site / "site-packages").mkdir(parents=True)
        for name in ("usercustomize", "bcc"):
            text = (folder / f"{name}.py").read_text()
            (site / "site-packages" / f"{name}.py").write_text(text)

    def sprung(self) -> list[str]:
        """The files that were run."""
        return sorted(path.name for path in self._run.iterdir())

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that lead here."""
        here = str(self.folder)
        return {
            **os.environ,
            "PYTHONPATH": here,
            "PYTHONUSERBASE": f"{here}/.local",
            "HOME": here,
            "PATH": f"{here}:.:{os.environ['PATH']}",
        }


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "trap")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The standard site with a running agent."""
    with World(tmp_path_factory.mktemp("world")) as made:
        yield made


def run(agent: Agent, trap: Trap, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`odm-agent ARGUMENTS` in the trap.

    The command itself is isolated here: what is looked at is what it starts in turn.
    """
    nsenter = ["/usr/bin/nsenter", f"--net={agent.netns.path}", "--"]
    return subprocess.run(
        [*nsenter, sys.executable, "-I", str(ODM_AGENT), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        cwd=trap.folder,
        env=trap.environment,
    )


def test_the_trap_works(trap: Trap) -> None:
    """Python as it is runs the files, one after the other and each by its own way."""
    for command, name in (
        ([sys.executable, "-m", "bcc"], "bcc"),
        ([sys.executable, "-c", "import argparse"], "argparse"),
        ([sys.executable, "-c", "pass"], "sitecustomize"),
        (["sh", "-c", "mount"], "mount"),
    ):
        subprocess.run(command, cwd=trap.folder, env=trap.environment, capture_output=True)
        assert name in trap.sprung()


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["check", "CONFIG"],
        ["status"],
        ["sockets"],
        ["reload"],
        ["explain", "fixed", CORRESPONDENT[Kind.TCP6.family]],
        ["exec", "--class", "fixed", "--", "/bin/true"],
        ["upgrade"],
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)
def test_no_verb_runs_files_of_the_current_folder(
    world: World, trap: Trap, arguments: list[str]
) -> None:
    config = str(world.agent.config)
    line = [config if each == "CONFIG" else each for each in arguments]
    if arguments[0] != "check":
        line[1:1] = ["--config", config]
    done = run(world.agent, trap, *line)
    assert done.returncode in (0, 5), done.stderr  # 5: what this host lacks is not ours to say
    if arguments == ["check"]:
        assert "load test" in done.stdout
    assert trap.sprung() == []


def test_an_agent_that_is_started_there_loads_its_own_programs(trap: Trap, tmp_path: Path) -> None:
    with World(tmp_path, start=False) as made:
        line = ["/usr/bin/nsenter", f"--net={made.agent.netns.path}", "--", sys.executable, "-I"]
        with (
            (tmp_path / "log").open("wb") as log,
            subprocess.Popen(
                [*line, str(ODM_AGENT), "run", "-c", str(made.agent.config)],
                cwd=trap.folder,
                env=trap.environment,
                stdout=log,
                stderr=log,
            ) as process,
        ):
            try:
                wait_until(made.agent.socket.exists, "the agent is up", timeout_s=60)
                assert made.agent.read("status")["version"]
            finally:
                process.terminate()
        assert "programs loaded" in (tmp_path / "log").read_text()
        done = run(made.agent, trap, "detach", "--config", str(made.agent.config))
        assert "detached the programs" in done.stdout, done.stderr
    assert trap.sprung() == []


def test_the_installed_command_itself_does_not_look_there(trap: Trap) -> None:
    done = subprocess.run([ODM_AGENT, "check"], cwd=trap.folder, capture_output=True, text=True)
    assert "load test" in done.stdout, done.stderr
    assert trap.sprung() == []


def test_what_systemd_is_told_to_start_runs_no_file_of_the_folder(trap: Trap) -> None:
    line = systemd_command(Scope("ssh", None, 1), ["--help"], ["true"])
    command = line[line.index("--") + 1 :]
    done = subprocess.run(command, cwd=trap.folder, env=trap.environment, capture_output=True)
    assert b"--in-scope" not in done.stderr and b"exec" in done.stdout
    assert trap.sprung() == []


def test_python_m_odm_agent_looks_no_further_than_for_itself(world: World, trap: Trap) -> None:
    """Where no `odm_agent` lies about, `-m` finds ours, and then leaves the folder alone."""
    for path in (trap.folder / "odm_agent.py", trap.folder / "odm_agent"):
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        else:
            path.unlink()
    for name in ("runpy", "pkgutil", "typing", "re"):  # before we are asked, by Python itself
        (trap.folder / f"{name}.py").unlink()
        for file in (trap.folder / name).iterdir():
            file.unlink()
        (trap.folder / name).rmdir()
    done = subprocess.run(
        [sys.executable, "-m", "odm_agent", "version"], cwd=trap.folder, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert trap.sprung() == []
