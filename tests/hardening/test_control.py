"""Whatever comes in by the control socket is answered clearly or hung up on; nobody is hurt."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from odm_agent.control.client import ControlClient
from odm_agent.control.server import LINE_LIMIT_BYTES
from tests.lab.world import World

_BOUNDED: Final = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_PATIENCE_S: Final = 5.0
#: Of the running agent, in kB; Python's own comings and goings included.
_GROWTH_KB: Final = 32 * 1024
_KINDS: Final = {"config", "request", "refused"}

#: Verbs that leave the agent as it is.
_VERBS: Final = st.sampled_from(
    ["status", "prefixes", "addresses", "classes", "sockets", "resolve", "classify", "unclassify"]
)
_WORDS: Final = st.sampled_from(
    [
        "",
        ".",
        "/",
        "\x1b[2J\u202e",
        "fixed",
        "every",
        "unspecified",
        "\0",
        "../..",
        "a" * 5000,
        "/sys/fs/cgroup",
    ]
)
_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
_ARGUMENTS: Final = st.dictionaries(
    st.sampled_from(["class", "type", "path", "cgroup_id", "x"]), _JSON, max_size=6
)


@pytest.fixture(autouse=True)
def unharmed(world: World) -> Iterator[None]:
    """After each test it is the same agent, it answers at once, and it is not much larger."""
    pid = world.agent.read("status")["pid"]
    before = _resident_kb(pid)
    yield
    started = time.monotonic()
    with ControlClient(world.agent.socket, timeout_s=_PATIENCE_S) as client:
        assert client.call("status")["pid"] == pid
    assert time.monotonic() - started < 2
    assert _resident_kb(pid) - before < _GROWTH_KB
    assert "Traceback" not in world.agent.log.read_text()


def _resident_kb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


def _connect(world: World) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(_PATIENCE_S)
    sock.connect(str(world.agent.socket))
    return sock


def _said(world: World, data: bytes) -> list[dict[str, Any]]:
    """All answers to `data`, after which we only listen."""
    text = b""
    with _connect(world) as sock:
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while piece := sock.recv(1 << 20):
                text += piece
    return [json.loads(line) for line in text.splitlines()]


def _assert_clear(answers: list[dict[str, Any]]) -> None:
    for each in answers:
        assert each["ok"] is True or (each["kind"] in _KINDS and each["error"]), each


@_BOUNDED
@given(st.binary(max_size=300))
@example(b"[" * 60000 + b"\n")
@example(b'{"verb":"status","x":' + b"[" * 30000 + b"]" * 30000 + b"}\n")
@example(b'{"verb":"status","x":' + b'{"a":' * 10000 + b"1" + b"}" * 10000 + b"}\n")
@example(b'{"verb":"\\ud800"}\n')
@example(b'{"verb":"status","x":1e999}\n')
@example(b'{"verb":"status","verb":null}\n')
@example(b"\n" * 300)
@example(b"\0" * 300)
def test_arbitrary_bytes(world: World, data: bytes) -> None:
    answers = _said(world, data)
    assert len(answers) == data.count(b"\n")
    _assert_clear(answers)


@_BOUNDED
@given(_VERBS, _ARGUMENTS)
@example("classify", {"class": "every", "type": "nonsense"})
@example("resolve", {"cgroup_id": -1})
@example("resolve", {"cgroup_id": 1 << 64})
@example("resolve", {"cgroup_id": True})
def test_arbitrary_arguments(world: World, verb: str, arguments: dict[str, Any]) -> None:
    request = json.dumps({**arguments, "verb": verb}, allow_nan=True).encode() + b"\n"
    (answer,) = _said(world, request)
    _assert_clear([answer])


@pytest.mark.parametrize("size", [LINE_LIMIT_BYTES - 1, LINE_LIMIT_BYTES + 1, 8 << 20])
def test_frames_that_do_not_end(world: World, size: int) -> None:
    answers = _said(world, b"x" * size)
    assert all(each["kind"] == "request" for each in answers)


def test_many_connections_that_say_nothing(world: World) -> None:
    """More than there is room for: the others are told so, and when they leave there is room."""
    with ExitStack() as stack:
        told = []
        for _ in range(200):
            with suppress(BlockingIOError):  # more than can wait at once: so says the kernel
                sock = stack.enter_context(_connect(world))
                sock.settimeout(0.01)
                with suppress(TimeoutError):
                    told.append(sock.recv(1000))
        assert len(told) > 100 and all(b"try again later" in each for each in told)
    give_up = time.monotonic() + _PATIENCE_S
    while time.monotonic() < give_up:
        with suppress(Exception), ControlClient(world.agent.socket) as client:
            assert client.call("status")
            return
    raise AssertionError("no room again")


def test_slow_and_half_closed_callers_hold_up_nobody(world: World) -> None:
    with ExitStack() as stack:
        for number in range(10):
            sock = stack.enter_context(_connect(world))
            sock.sendall(b'{"verb":"sta'[: number + 1])
            if number % 2:
                sock.shutdown(socket.SHUT_WR)
        started = time.monotonic()
        for _ in range(20):
            assert _said(world, b'{"verb":"status"}\n')[0]["ok"]
        assert time.monotonic() - started < 5


def test_caller_that_never_reads_its_answers(world: World) -> None:
    """What waits for him is bounded: requests are read only as answers are taken."""
    with _connect(world) as sock:
        sock.setblocking(False)
        sent = 0
        with suppress(BlockingIOError):
            for _ in range(20000):
                sent += sock.send(b'{"verb":"status"}\n' * 50)
        assert sent < 4 << 20
        assert _said(world, b'{"verb":"status"}\n')[0]["ok"]
