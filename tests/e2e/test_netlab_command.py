"""`make netlab` and `make netlab-down` as people use them, and after something was killed."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import run
from tests.lab.process import wait_until
from tests.lab.root import needs_root

pytestmark = needs_root

_ROOT = Path(__file__).parents[2]


class Command:
    """The command, with a laboratory of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def __call__(self, *verb: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.netlab", *verb],
            cwd=_ROOT,
            env=os.environ | {"ODM_NETLAB": str(self.state)},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def number(self) -> str:
        """The number in all names of the laboratory."""
        return (self.state / "number").read_text()


@pytest.fixture
def netlab() -> Iterator[Command]:
    with tempfile.TemporaryDirectory(prefix="odm-test-") as folder:
        command = Command(Path(folder) / "netlab")
        try:
            yield command
        finally:
            command("down")


def left(number: str) -> list[str]:
    """Whatever carries a laboratory's number."""
    found = [each for each in os.listdir("/run/netns") if f"-{number}-" in each]
    found += [each for each in os.listdir("/tmp") if f"odmlab-{number}-" in each]
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if f"{run.MARK}={number}".encode() in environment:
                found.append(command)
    return found


def test_up_and_down(netlab: Command) -> None:
    said = netlab("up")
    assert "2001:db8:2000::/48" in said and f"nsenter --net={netlab.state}/mobile" in said
    number = netlab.number
    assert left(number)
    answer = subprocess.run(
        ["nsenter", f"--net={netlab.state}/mobile", "ip", "-br", "link"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "w0" in answer.stdout and "w1" in answer.stdout
    assert "delegated now:" in netlab("status")
    assert "there is a laboratory already" in netlab("up", code=1)
    assert "removed, since its keeper" not in netlab("down")
    assert not left(number)
    assert "no laboratory" in netlab("status", code=1)


def test_what_a_killed_keeper_leaves_is_found_by_its_number(netlab: Command) -> None:
    netlab("up")
    number = netlab.number
    os.kill(int(number), signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{number}").exists(), "the keeper ends", 10)
    assert "netlab-down" in netlab("status", code=1)
    said = netlab("down")
    assert "kea-dhcp6" in said and "postgres" in said and "network namespace" in said
    assert not left(number)


@pytest.mark.parametrize("after_s", [0.2, 1.5])
def test_an_interrupted_start_leaves_nothing(netlab: Command, after_s: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.netlab", "up"],
        cwd=_ROOT,
        env=os.environ | {"ODM_NETLAB": str(netlab.state)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: bool((netlab.state / "number").exists()), "it begins", 20)
        number = netlab.number
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    netlab("down")  # whatever came first, the start or we
    assert not left(number)


def test_what_a_killed_test_run_leaves_goes_too(netlab: Command) -> None:
    """Its number is that of a process that is over."""
    code = (
        "import os, signal; from tests.netlab.site import OneSite; made = OneSite();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    mine = {each: value for each, value in os.environ.items() if each != run.MARK}
    process = subprocess.Popen(
        ["sh", "-c", f'{run.MARK}=$$ exec "$0" -c "$1"', sys.executable, code], cwd=_ROOT, env=mine
    )
    assert process.wait(60) == -signal.SIGKILL
    number = str(process.pid)
    assert left(number)
    assert "is still there" in netlab("sweep", str(os.getpid()), code=1)
    said = netlab("sweep", number)
    assert "kea-dhcp6" in said and f"odmlab-{number}-" in said
    assert not left(number)
