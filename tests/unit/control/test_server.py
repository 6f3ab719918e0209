"""The control socket with real sockets, and callers that do not behave."""

import asyncio
import contextlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from odm_agent.control.answers import ClassView
from odm_agent.control.client import AgentNotRunning, ControlClient
from odm_agent.control.server import LINE_LIMIT_BYTES, ControlServer
from odm_agent.core.errors import ConfigError, ControlError, OdmError
from tests.lab.root import needs_root

T = TypeVar("T")
NOBODY_UID = 65534


async def echo(arguments: dict[str, Any]) -> Any:
    return arguments


async def refuse(arguments: dict[str, Any]) -> Any:
    raise OdmError("class ssh may not use fixed; add it to classes.ssh.allow")


async def refuse_config(arguments: dict[str, Any]) -> Any:
    raise ConfigError("odm-agent.toml:3: bad prefix")


async def crash(arguments: dict[str, Any]) -> Any:
    raise RuntimeError("a secret of ours")


HANDLERS = {"echo": echo, "refuse": refuse, "reload": refuse_config, "crash": crash}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter (pytest's own is root's alone)."""
    with tempfile.TemporaryDirectory(prefix=f"odm-control-{os.getpid()}-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@contextlib.asynccontextmanager
async def serving(path: Path, **options: Any) -> AsyncIterator[ControlServer]:
    async with ControlServer(path, HANDLERS, **options) as server:
        yield server


def with_server(path: Path, work: Callable[[], T], **options: Any) -> T:
    """What blocking `work` returns while a server serves at `path`."""

    async def main() -> T:
        async with serving(path, **options):
            return await asyncio.to_thread(work)

    return asyncio.run(main())


def raw(path: Path, data: bytes) -> bytes:
    """Everything that the server says to `data` until it or we have had enough."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(65536):
                answer += piece
        return answer


def as_nobody(path: Path) -> bytes:
    """The first bytes that a process without any privilege reads from the socket, or its errno."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY_UID)
            os.setuid(NOBODY_UID)
            try:
                os.write(writing, raw(path, b'{"verb": "echo"}\n'))
            except OSError as error:
                os.write(writing, f"errno {error.errno}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_a_call_returns_what_the_handler_returned(folder: Path) -> None:
    path = folder / "run" / "control.sock"

    def work() -> Any:
        with ControlClient(path) as client:
            return [client.call("echo", a=1), client.call("echo", b="x")]

    assert with_server(path, work) == [{"a": 1}, {"b": "x"}]


def test_socket_and_folder_are_roots_alone_and_vanish_at_the_end(folder: Path) -> None:
    path = folder / "run" / "control.sock"

    def work() -> tuple[int, int]:
        return stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)

    assert with_server(path, work) == (0o600, 0o700)
    assert not path.exists()


def test_a_refusal_reaches_the_caller_in_its_own_words(folder: Path) -> None:
    path = folder / "c.sock"

    def work() -> None:
        with ControlClient(path) as client:
            with pytest.raises(ControlError, match=r"add it to classes\.ssh\.allow"):
                client.call("refuse")
            with pytest.raises(ConfigError, match="bad prefix"):
                client.call("reload")
            with pytest.raises(ControlError, match="no verb 'dance'; it knows: crash, echo"):
                client.call("dance")

    with_server(path, work)


def test_a_bug_in_a_handler_is_logged_not_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "c.sock"

    def work() -> None:
        with ControlClient(path) as client:
            with pytest.raises(ControlError, match="its log says where") as caught:
                client.call("crash")
            assert "secret" not in str(caught.value)
            assert client.call("echo", still="alive") == {"still": "alive"}

    with_server(path, work)
    assert "a secret of ours" in caplog.text


@pytest.mark.parametrize(
    "junk", [b"hello\n", b"[]\n", b"{}\n", b'{"verb": 3}\n', b"\xff\xfe\x00\n", b"\n"]
)
def test_junk_is_answered_with_what_is_wrong_with_it(folder: Path, junk: bytes) -> None:
    path = folder / "c.sock"
    answer = json.loads(with_server(path, lambda: raw(path, junk)))
    assert answer["ok"] is False
    assert answer["kind"] == "request"
    assert "verb" in answer["error"]


def test_the_connection_survives_junk(folder: Path) -> None:
    path = folder / "c.sock"
    answers = with_server(path, lambda: raw(path, b'nonsense\n{"verb": "echo", "a": 1}\n'))
    assert [json.loads(line)["ok"] for line in answers.splitlines()] == [False, True]


def test_a_huge_line_is_refused(folder: Path) -> None:
    path = folder / "c.sock"
    answer = with_server(path, lambda: raw(path, b"x" * (4 * LINE_LIMIT_BYTES) + b"\n"))
    # The kernel may throw the answer away when we are still writing: nothing or a refusal.
    assert not answer or f"longer than {LINE_LIMIT_BYTES} bytes" in answer.decode()

    answer = with_server(path, lambda: raw(path, b"x" * (LINE_LIMIT_BYTES + 1) + b"\n"))
    assert f"longer than {LINE_LIMIT_BYTES} bytes" in answer.decode()


def test_half_a_request_is_not_carried_out(folder: Path) -> None:
    path = folder / "c.sock"
    assert with_server(path, lambda: raw(path, b'{"verb": "echo"}')) == b""


@needs_root
def test_an_unprivileged_caller_cannot_open_the_socket(folder: Path) -> None:
    path = folder / "c.sock"
    assert with_server(path, lambda: as_nobody(path)) == b"errno 13"


@needs_root
def test_an_unprivileged_caller_is_refused_even_when_the_file_mode_lets_him_in(
    folder: Path,
) -> None:
    path = folder / "c.sock"

    def work() -> bytes:
        path.chmod(0o666)
        return as_nobody(path)

    answer = json.loads(with_server(path, work))
    assert answer == {
        "ok": False,
        "error": "only root may control the agent; use sudo",
        "kind": "refused",
    }


def test_an_idle_caller_is_sent_away(folder: Path) -> None:
    path = folder / "c.sock"

    def work() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(path))
            return sock.recv(1)

    assert with_server(path, work, idle_timeout_s=0.05) == b""


def test_one_caller_too_many_is_told_so(folder: Path) -> None:
    path = folder / "c.sock"

    def work() -> None:
        with ControlClient(path) as first, ControlClient(path) as second:
            assert first.call("echo", a=1) == {"a": 1}
            with pytest.raises(ControlError, match="already serves 1 callers"):
                second.call("echo")
        with ControlClient(path) as third:
            for _ in range(100):
                with contextlib.suppress(ControlError):
                    assert third.call("echo", b=1) == {"b": 1}
                    return
                third.close()
        raise AssertionError("the place of the first caller never became free")

    with_server(path, work, max_clients=1)


def test_leaving_the_server_hangs_up_on_callers(folder: Path) -> None:
    path = folder / "c.sock"

    async def main() -> bytes:
        async with serving(path):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b'{"verb": "echo"}\n')
            await reader.readline()
        rest = await reader.read()
        writer.close()
        return rest

    assert asyncio.run(asyncio.wait_for(main(), 5)) == b""


def test_a_stale_socket_is_replaced_a_live_one_is_not(folder: Path) -> None:
    path = folder / "c.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with ControlClient(path) as client, pytest.raises(AgentNotRunning, match="odm-agent run"):
        client.call("echo")

    def work() -> None:
        with pytest.raises(ControlError, match="another agent listens there"):
            with_server(path, lambda: None)
        with ControlClient(path) as client:
            assert client.call("echo") == {}

    with_server(path, work)


def test_a_file_that_is_no_socket_is_left_alone(folder: Path) -> None:
    path = folder / "c.sock"
    path.write_text("precious")
    with pytest.raises(ControlError, match="is no socket"):
        with_server(path, lambda: None)
    assert path.read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_said_to_be(folder: Path) -> None:
    with pytest.raises(ControlError, match="longer than 107 bytes"):
        with_server(folder / ("x" * 120), lambda: None)


def test_a_client_without_agent_says_how_to_start_it(folder: Path) -> None:
    with ControlClient(folder / "none.sock") as client, pytest.raises(AgentNotRunning) as caught:
        client.call("status")
    assert "odm-agent run" in str(caught.value)


def test_an_answer_of_another_shape_is_an_error_that_names_the_cause(folder: Path) -> None:
    path = folder / "c.sock"

    def work() -> None:
        with ControlClient(path) as client, pytest.raises(ControlError, match="one version"):
            client.ask("echo", list[ClassView])

    with_server(path, work)


def test_a_silent_agent_is_not_waited_for_for_ever(folder: Path) -> None:
    path = folder / "c.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(1)
        with (
            ControlClient(path, timeout_s=0.05) as client,
            pytest.raises(ControlError, match="no answer within"),
        ):
            client.call("echo")


class Patient:
    """Two verbs that wait for ever, of which one may be given up; what became of them."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.go_on = asyncio.Event()
        self.handlers = {"echo": echo, "wait": self.wait, "work": self.work}

    async def wait(self, _: dict[str, Any]) -> str:
        return await self._done("wait")

    async def work(self, _: dict[str, Any]) -> str:
        return await self._done("work")

    async def _done(self, verb: str) -> str:
        self.said.append(f"{verb} begun")
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.said.append(f"{verb} given up")
            raise
        self.said.append(f"{verb} done")
        return "done"

    async def until(self, *said: str) -> None:
        while self.said != list(said):
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def asked(path: Path, verb: str) -> AsyncIterator[tuple[Patient, socket.socket]]:
    """A server that was asked by a caller and has begun."""
    patient = Patient()
    async with (
        asyncio.timeout(5),
        ControlServer(path, patient.handlers, waiting={"wait"}, max_clients=1),
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.setblocking(False)
            sock.sendall(json.dumps({"verb": verb}).encode() + b"\n")
            await patient.until(f"{verb} begun")
            yield patient, sock


def test_what_only_waits_ends_when_its_caller_hangs_up(folder: Path) -> None:
    """And makes room for another one, who is not mistaken for the first."""
    path = folder / "c.sock"

    async def main() -> None:
        async with asked(path, "wait") as (patient, sock):
            sock.close()
            await patient.until("wait begun", "wait given up")
            await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b'{"verb": "wait"}\n')
            await patient.until("wait begun", "wait given up", "wait begun")
            await asyncio.sleep(0.05)
            patient.go_on.set()
            assert json.loads(await reader.readline())["result"] == "done"
            writer.close()

    asyncio.run(main())


def test_who_hangs_up_with_an_answer_unread_is_noticed_too(folder: Path) -> None:
    """The stream is reset then, and closes the server's own end."""
    path = folder / "c.sock"

    async def main() -> None:
        patient = Patient()
        async with asyncio.timeout(5), ControlServer(path, patient.handlers, waiting={"wait"}):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            sock.sendall(b'{"verb": "echo"}\n{"verb": "wait"}\n')
            await patient.until("wait begun")
            sock.close()
            await patient.until("wait begun", "wait given up")

    asyncio.run(main())


def test_who_has_only_ended_his_own_side_is_answered(folder: Path) -> None:
    path = folder / "c.sock"

    async def main() -> None:
        async with asked(path, "wait") as (patient, sock):
            sock.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.05)
            patient.go_on.set()
            answer = await asyncio.get_running_loop().sock_recv(sock, 4096)
            assert json.loads(answer)["result"] == "done"

    asyncio.run(main())


def test_what_does_something_is_done_to_its_end_without_its_caller(folder: Path) -> None:
    path = folder / "c.sock"

    async def main() -> None:
        async with asked(path, "work") as (patient, sock):
            sock.close()
            await asyncio.sleep(0.05)
            patient.go_on.set()
            await patient.until("work begun", "work done")

    asyncio.run(main())
