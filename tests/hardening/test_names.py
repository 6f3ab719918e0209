"""Names that others choose (of cgroups, of processes) break nothing and reach nobody's terminal."""

import json
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from odm_agent.control.client import ControlClient
from tests.lab.agent import LabClass, Settings
from tests.lab.cgroup import Cgroup
from tests.lab.host import FIXED, PREFIXES
from tests.lab.place import Place, Ready
from tests.lab.world import World

NOBODY: Final = 65534
#: No UTF-8, an escape sequence, its one-character form (C1), and one that turns what follows.
BAD: Final = b"\xff\xfe\x1b[2J\xc2\x9b2J\xe2\x80\xae"
SHOWN: Final = "\\xff\\xfe\\x1b[2J\\u009b2J\\u202e"
CLASSES: Final = {
    "fixed": LabClass(allow=(FIXED,), default=FIXED),
    "user": LabClass(allow=(FIXED,), cgroups=("user/*/*.service",), delegated=True),
    "roots": LabClass(allow=(FIXED,), cgroups=("roots/*.service",)),
}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A user has made a cgroup with a bad name in a delegated class, and one in a class that isn't.

    A process with a bad name is in the first and listens.
    """
    with (
        tempfile.TemporaryDirectory(prefix=f"odm-names-{os.getpid()}-") as folder,
        World(Path(folder), Settings(PREFIXES, CLASSES, agent={"log_level": "info"})) as made,
    ):
        for path in ("user/u65534", "roots"):
            place = made.place(path)
            os.chown(place.cgroup.path, NOBODY, NOBODY)
            name = os.fsencode(place.cgroup.path) + b"/" + BAD + b".service"
            made.place("plain").do(lambda name=name: os.mkdir(name), uid=NOBODY)  # type: ignore[misc]
        bad = made.cgroup.path / "user/u65534" / os.fsdecode(BAD + b".service")
        with Place(Cgroup.at(bad), made.site.host).background(_listen):
            yield made


def _listen(ready: Ready) -> None:
    Path("/proc/self/comm").write_bytes(b"a\n" + BAD)
    with socket.create_server(("0.0.0.0", 5555)):
        ready(os.getpid())
        signal.pause()


def _assert_fit(text: str) -> None:
    unfit = {each for each in text if not each.isprintable()} - {"\n"}
    assert not unfit, ascii(unfit)


@pytest.mark.parametrize("verb", ["status", "classes", "sockets", "addresses", "prefixes"])
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
def test_every_read_works_and_shows_them_escaped(
    world: World, verb: str, form: tuple[str, ...]
) -> None:
    result = world.agent.call(verb, *form, "--socket", str(world.agent.socket))
    assert result.returncode == 0, result.stderr
    _assert_fit(result.stdout + result.stderr)
    shown = SHOWN.replace("\\", "\\\\") if form else SHOWN
    assert (shown in result.stdout) == (verb in ("status", "classes", "sockets"))


def test_the_socket_there_is_of_the_class_and_its_process_is_named(world: World) -> None:
    listener = next(
        each for each in world.agent.read("sockets") if each["source"].endswith(":5555")
    )
    assert (listener["class"], listener["cgroup"]) == ("user", f"user/u65534/{SHOWN}.service")
    assert listener["process"] == f"a\\x0a{SHOWN}"


def test_its_class_is_found_by_the_process(world: World) -> None:
    pid = next(each["pid"] for each in world.agent.read("sockets") if each["class"] == "user")
    result = world.agent.call(
        "explain", str(pid), "192.0.2.1", "--json", "--socket", str(world.agent.socket)
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["class"] == "user"
    assert found["cgroup"].endswith(f"/user/u65534/{SHOWN}.service")


def test_a_command_is_run_beside_them(world: World) -> None:
    result = world.agent.call(
        *("exec", "--class", "fixed", "--socket", str(world.agent.socket), "--", "true")
    )
    assert result.returncode == 0, result.stderr


def test_the_control_socket_says_them_in_utf8(world: World) -> None:
    with ControlClient(world.agent.socket) as client:
        for verb in ("status", "classes", "sockets"):
            assert SHOWN in str(client.call(verb)).replace("\\\\", "\\")


def test_the_metrics_are_whole(world: World) -> None:
    text = world.agent.metrics()
    _assert_fit(text)
    assert not [
        line
        for line in text.splitlines()
        if line.startswith("odm_collector_errors_total") and not line.endswith(" 0.0")
    ]


def test_the_log_and_the_alarm_name_them_escaped(world: World) -> None:
    log = world.agent.log.read_text()
    _assert_fit(log)
    assert f"roots/{SHOWN}.service is not classified" in log
    assert "Traceback" not in log


def test_check_looks_at_all_processes_and_cgroups(world: World) -> None:
    result = world.agent.call("check", str(world.agent.config))
    _assert_fit(result.stdout + result.stderr)
    assert "Traceback" not in result.stderr
    assert f"roots/{SHOWN}.service" in result.stdout
