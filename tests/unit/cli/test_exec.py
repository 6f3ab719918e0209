"""exec with real cgroups and processes; only the agent that classifies is a fake."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from odm_agent.cli.launch import own_arguments, systemd_command, wants_systemd_scope
from odm_agent.control.scopes import PARENT, Scope, parse
from odm_agent.core.errors import ControlError
from odm_agent.core.model import AddressType
from odm_agent.kernel.cgroups import cgroup_id, find_root
from tests.lab.cgroup import Cgroup
from tests.unit.cli.conftest import STATUS, FakeAgent


@pytest.fixture
def attached(agent: FakeAgent) -> Iterator[Cgroup]:
    """The cgroup that the fake agent says it is attached to."""
    with Cgroup("exec") as cgroup:
        agent.answers["status"] = msgspec.structs.replace(STATUS, cgroup=str(cgroup.path))
        yield cgroup


def command(agent: FakeAgent, *arguments: str) -> list[str]:
    """The command line of `odm-agent exec --class ssh ARGUMENTS`."""
    options = ["exec", "--socket", str(agent.socket), "--class", "ssh"]
    return [sys.executable, "-m", "odm_agent", *options, *arguments]


def run(agent: FakeAgent, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(agent, *arguments), capture_output=True, text=True, timeout=30)


def test_the_command_runs_in_a_cgroup_that_was_classified_before(
    agent: FakeAgent, attached: Cgroup
) -> None:
    done = run(agent, "--type", "fixed", "--", "cat", "/proc/self/cgroup")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("0::"))
    where = Path(f"{find_root()}/{line[3:].lstrip('/')}")
    assert where.parent == attached.path / PARENT
    scope = parse(where.name)
    assert scope is not None
    assert (scope.class_name, scope.type) == ("ssh", AddressType.FIXED)

    (asked,) = agent.called("classify")
    assert (asked["class"], asked["type"], asked["path"]) == ("ssh", "fixed", str(where))
    assert agent.called("unclassify") == [{"cgroup_id": asked["cgroup_id"]}]
    assert not (attached.path / PARENT).exists()


def test_a_refusal_of_the_agent_starts_nothing_and_leaves_nothing(
    agent: FakeAgent, attached: Cgroup, tmp_path: Path
) -> None:
    agent.answers["classify"] = ControlError("class 'ssh' may not use nonpersistent")
    done = run(agent, "--type", "nonpersistent", "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 1
    assert done.stderr == "odm-agent: class 'ssh' may not use nonpersistent\n"
    assert not (tmp_path / "ran").exists()
    assert not (attached.path / PARENT).exists()


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill $$", 143)]
)
def test_the_exit_code_is_the_commands(
    script: str, code: int, agent: FakeAgent, attached: Cgroup
) -> None:
    assert run(agent, "--", "sh", "-c", script).returncode == code


def test_a_command_that_cannot_be_started_is_said_as_a_shell_does(
    agent: FakeAgent, attached: Cgroup, tmp_path: Path
) -> None:
    gone = run(agent, "--", "/nonexistent")
    assert (gone.returncode, gone.stderr) == (
        127,
        "odm-agent: cannot start /nonexistent: No such file or directory\n",
    )
    assert run(agent, "--", str(tmp_path)).returncode == 126


def test_options_of_the_command_are_its_own(agent: FakeAgent, attached: Cgroup) -> None:
    assert run(agent, "echo", "--type", "--json", "-s").stdout == "--type --json -s\n"


def test_another_user_is_taken_on_completely(agent: FakeAgent, attached: Cgroup) -> None:
    script = "id -u; id -g; id -G; echo $USER $LOGNAME"
    line = command(agent, "--user", "nobody", "--", "sh", "-c", script)
    # Groups that root has beside its own must not come along.
    done = subprocess.run(line, extra_groups=[4, 24], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["65534", "65534", "65534", "nobody", "nobody"]
    assert run(agent, "--user", "65534", "--", "id", "-un").stdout == "nobody\n"
    stranger = run(agent, "--user", "no-such-user", "--", "id")
    assert stranger.returncode == 2
    assert "no-such-user" in stranger.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_command(
    number: signal.Signals, agent: FakeAgent, attached: Cgroup
) -> None:
    script = f"trap 'exit 9' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        command(agent, "--", "bash", "-c", script),
        stdout=subprocess.PIPE,
        text=True,
        # A run in the background, or by nohup, ignores it: then the shell can't trap it.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(10) == 9
    assert not (attached.path / PARENT).exists()


def test_what_a_command_leaves_behind_keeps_its_class_until_it_ends(
    agent: FakeAgent, attached: Cgroup
) -> None:
    done = run(agent, "--", "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!")
    sleeper = int(done.stdout)
    assert done.returncode == 0, done.stderr
    (left,) = (attached.path / PARENT).glob("*.scope")
    assert (left / "cgroup.procs").read_text().split() == [str(sleeper)]
    assert agent.called("unclassify") == []
    number = cgroup_id(left)

    os.kill(sleeper, signal.SIGKILL)
    for _ in itertools.repeat(None, 100):
        if not (left / "cgroup.procs").read_text():
            break
        time.sleep(0.02)
    assert run(agent, "--", "true").returncode == 0
    assert {"cgroup_id": number} in agent.called("unclassify")
    assert not (attached.path / PARENT).exists()


def test_a_bad_type_and_a_missing_class_are_usage_errors(agent: FakeAgent) -> None:
    assert run(agent, "--type", "fast", "--", "true").returncode == 2
    bare = [sys.executable, "-m", "odm_agent", "exec", "--", "true"]
    done = subprocess.run(bare, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "--class" in done.stderr


def test_systemd_is_asked_for_the_very_same_cgroup() -> None:
    scope = Scope("ssh", AddressType.SESSION_LASTING, 4711)
    inner = own_arguments(Path("/run/c.sock"), "ssh", "session-lasting", "alice")
    line = systemd_command(scope, inner, ["curl", "-s", "x"])
    assert line[: line.index("--")] == [
        "systemd-run",
        "--scope",
        "--quiet",
        "--collect",
        "--slice=odm.slice",
        "--unit=ssh.session-lasting.4711.scope",
    ]
    assert line[line.index("exec") :] == [
        *("exec", "--in-scope", "--socket", "/run/c.sock", "--class", "ssh"),
        *("--type", "session-lasting", "--user", "alice", "--", "curl", "-s", "x"),
    ]


def test_systemd_is_asked_only_where_it_runs_and_we_are_attached_above_it(tmp_path: Path) -> None:
    assert wants_systemd_scope(find_root(), mark=tmp_path)
    assert not wants_systemd_scope(find_root() / "test", mark=tmp_path)
    assert not wants_systemd_scope(find_root(), mark=tmp_path / "none")


def test_inside_a_scope_nothing_is_made_or_removed(agent: FakeAgent, attached: Cgroup) -> None:
    """systemd's part is played by a shell that makes the scope and becomes `exec` in it."""
    parent = attached.child(PARENT)
    enter = 'mkdir "$scope" && echo 0 >"$scope/cgroup.procs" && exec "$@"'
    script = f'scope="$0/ssh.fixed.$$.scope"; {enter}'
    line = command(agent, "--in-scope", "--type", "fixed", "--", "true")
    done = subprocess.run(
        ["sh", "-c", script, str(parent.path), *line], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    (asked,) = agent.called("classify")
    (scope,) = parent.path.glob("*.scope")
    assert asked["path"] == str(scope)
    assert agent.called("unclassify") == []


def test_a_process_that_is_not_in_its_scope_says_so(agent: FakeAgent, attached: Cgroup) -> None:
    done = run(agent, "--in-scope", "--", "true")
    assert done.returncode == 1
    assert "systemd put this process elsewhere" in done.stderr
    assert agent.called("classify") == []
