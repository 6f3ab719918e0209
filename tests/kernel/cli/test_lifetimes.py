"""lifetimes, rotate, usage and events with the real agent; the correspondent is the witness."""

import fcntl
import json
import select
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.agent import LabClass
from tests.lab.cases import each_kind
from tests.lab.client import Kind, ask, call, exchange, outcome
from tests.lab.host import FIXED, SESSION, prefix_of
from tests.lab.place import Ready
from tests.lab.world import STANDARD, World

_SETTINGS: Final = replace(
    STANDARD,
    classes={"session": LabClass(allow=(SESSION,), default=SESSION)},
    extra={each: {"budget": "10GB", "rotate": "1d"} for each in ("session6", "session4")},
)
_TCP: Final = (Kind.TCP6, Kind.TCP4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose session-lasting addresses end by themselves, but not while a test runs."""
    with World(tmp_path_factory.mktemp("world"), _SETTINGS) as made:
        yield made


def odm(world: World, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return world.agent.call(*arguments, "--socket", str(world.agent.socket))


def told(world: World, event: str) -> list[dict[str, Any]]:
    done = odm(world, "events", "--json")
    assert done.returncode == 0, done.stderr
    return [e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == event]


def phases(world: World, family: Family) -> dict[str, str]:
    name = prefix_of(SESSION, family).name
    found = world.agent.read("lifetimes", "--prefix", name)
    return {each["address"]: each["phase"] for each in found}


def unacknowledged(sock: socket.socket) -> int:
    """How much of what was sent the far end has not acknowledged."""
    (left,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(left)


@each_kind(*_TCP)
def test_rotate_gives_new_sockets_another_address_and_old_ones_keep_theirs(
    world: World, kind: Kind
) -> None:
    """It returns when that is so, and tells the two; `lifetimes` and `events` do, too."""
    place, name = world.place("session"), prefix_of(SESSION, kind.family).name

    def talk(ready: Ready) -> None:
        with kind.open() as sock:
            ready(exchange(sock, kind).seen)
            while True:
                began_s = time.monotonic()
                sock.send(b"x")
                while unacknowledged(sock):
                    time.sleep(0.01)
                ready(began_s)
                time.sleep(0.05)

    with place.conversation(talk) as conversation:
        old = conversation.hear()
        done = odm(world, "rotate", name)
        assert done.returncode == 0, done.stderr
        new = place.do(lambda: call(kind).seen)
        assert done.stdout == f"{name}: {old} -> {new}\n"
        assert old != new
        assert {old: "lingering", new: "current"}.items() <= phases(world, kind.family).items()
        now_s = time.monotonic()
        while conversation.hear() < now_s:
            pass
    [event] = [each for each in told(world, "rotated") if each["address"] == old]
    assert (event["prefix"], event["type"], event["new"]) == (name, SESSION.word, new)
    assert event["detail"] == "asked"


def test_what_does_not_end_cannot_rotate(world: World) -> None:
    for what in ("fixed6", "fixed", "nothing"):
        done = odm(world, "rotate", what)
        assert done.returncode == 1
        assert "can rotate" in done.stderr


def test_usage_is_what_the_meters_say(world: World) -> None:
    """Of one address, and of its class: whatever else was sent, both grow alike."""
    place = world.place("session")

    def used() -> tuple[int, int]:
        meters = sum(
            each["used_bytes"]
            for each in world.agent.read("lifetimes")
            if each["prefix"] == "session6" and each["phase"] == "current"
        )
        usage = world.agent.read("usage", "--class", "session", "--type", SESSION.word)
        return meters, sum(each["bytes"] for each in usage)

    before = used()
    place.do(lambda: call(Kind.UDP6).seen)
    after = used()
    assert after[0] - before[0] == after[1] - before[1] > 0


def test_who_follows_is_told_of_a_refusal_at_once(world: World) -> None:
    place = world.place("session")

    def asked() -> None:
        with Kind.TCP6.open() as sock:
            assert outcome(lambda: ask(sock, FIXED)) == "EACCES"

    line = world.agent.program("events", "-f", "--json", "--socket", str(world.agent.socket))
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as following:
        late = threading.Timer(20, following.kill)
        late.start()
        try:
            assert following.stdout is not None
            place.do(asked)
            while (event := json.loads(following.stdout.readline()))["event"] != "refused":
                pass
        finally:
            late.cancel()
            following.terminate()
    assert (event["class"], event["type"]) == ("session", AddressType.FIXED.word)
    assert event["detail"] == "class, at setsockopt"


def test_followers_that_are_gone_are_in_nobodys_way(world: World) -> None:
    """However often as many follow as may, and hang up: there is room for them again."""

    def follower() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(str(world.agent.socket))
        sock.sendall(b'{"verb": "events", "after": 4611686018427387904, "wait": true}\n')
        return sock

    def refused(followers: list[socket.socket]) -> int:
        answered, _, _ = select.select(followers, [], [], 5)
        assert all(b"follow the events already" in each.recv(4096) for each in answered)
        return len(answered)

    def threads() -> int:
        pid = json.loads(odm(world, "status", "--json").stdout)["pid"]
        return len(list(Path(f"/proc/{pid}/task").iterdir()))

    odm(world, "lifetimes")  # so that all threads are there
    before = threads()
    for _ in range(3):
        with ExitStack() as open_ones:
            assert refused([open_ones.enter_context(follower()) for _ in range(9)]) == 1
        assert threads() == before
