"""Where applications wait: they are answered once, and nothing that they do holds anybody up."""

import asyncio
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from odm_agent import waiting
from odm_agent.control import wait_caller, wait_server
from odm_agent.control.wait_caller import ANSWER, MAGIC, REQUEST, Answers, Said, Word
from odm_agent.control.wait_server import WaitServer
from odm_agent.control.wait_thread import WaitThread
from odm_agent.core.errors import ControlError

Await = Callable[[int, float], Coroutine[Any, Any, Word]]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def never(ticket: int, within_s: float) -> Word:
    await asyncio.sleep(3600)
    raise AssertionError


def waited(answer: Await) -> Answers:
    """Of nothing anything is known at once."""
    return Answers(lambda ticket: None, answer)


def served(
    path: Path,
    answer: Await,
    test: Callable[[], Awaitable[None]],
    says_s: float = 20.0,
) -> None:
    async def main() -> None:
        async with WaitServer(str(path), waited(answer), says_s=says_s):
            await test()

    asyncio.run(main())


async def heard(stream: Stream) -> tuple[Said, str]:
    raw = await asyncio.wait_for(stream[0].read(), 20)
    said, length = ANSWER.unpack(raw[: ANSWER.size])
    assert len(raw) == ANSWER.size + length
    return Said(said), raw[ANSWER.size :].decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wait" / "wait.sock"


def test_a_caller_is_told_what_comes_of_his_ticket(path: Path) -> None:
    asked: list[tuple[int, float]] = []

    async def answer(ticket: int, within_s: float) -> Word:
        asked.append((ticket, within_s))
        return Word(Said.FAILED, "none is left: " + "ü" * 300)

    async def test() -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
        stream = await asyncio.open_unix_connection(path)
        stream[1].write(REQUEST.pack(MAGIC, 1500, 1 << 63))
        said, cause = await heard(stream)
        assert said is Said.FAILED and cause.startswith("none is left: üü")
        stream[1].close()

    served(path, answer, test)
    assert asked == [(1 << 63, 1.5)]
    assert not path.exists()


def test_what_is_known_is_said_at_once(path: Path) -> None:
    async def test() -> None:
        for ticket, said in ((7, (Said.READY, "")), (8, None)):
            stream = await asyncio.open_unix_connection(path)
            stream[1].write(REQUEST.pack(MAGIC, 60_000, ticket))
            if said is not None:
                assert await heard(stream) == said
            else:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(stream[0].read(), 0.2)
            stream[1].close()

    async def main() -> None:
        known = {7: Word(Said.READY)}
        async with WaitServer(str(path), Answers(known.get, never)):
            await test()

    asyncio.run(main())


def test_what_is_said_by_and_by_is_understood(path: Path) -> None:
    async def answer(ticket: int, within_s: float) -> Word:
        return Word(Said.READY)

    async def test() -> None:
        stream = await asyncio.open_unix_connection(path)
        for byte in REQUEST.pack(MAGIC, 1000, 1):
            stream[1].write(bytes([byte]))
            await asyncio.sleep(0.005)
        assert await heard(stream) == (Said.READY, "")
        stream[1].close()

    served(path, answer, test)


def test_nobody_waits_for_longer_than_a_minute_at_a_time(path: Path) -> None:
    asked: list[float] = []

    async def answer(ticket: int, within_s: float) -> Word:
        asked.append(within_s)
        return Word(Said.LATE)

    async def test() -> None:
        stream = await asyncio.open_unix_connection(path)
        stream[1].write(REQUEST.pack(MAGIC, 0xFFFFFFFF, 1))
        assert await heard(stream) == (Said.LATE, "")
        stream[1].close()

    served(path, answer, test)
    assert asked == [wait_caller.LONGEST_S]


@pytest.mark.parametrize(
    "said", [b"", b"ODM", b"x" * REQUEST.size, b"x" * 100_000], ids=["none", "part", "else", "much"]
)
def test_who_does_not_speak_the_language_is_hung_up(path: Path, said: bytes) -> None:
    async def test() -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(said)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(reader.readexactly(1), 20)
        writer.close()

    served(path, never, test, says_s=0.2)


@pytest.mark.parametrize("how", ["hangs up", "says more"])
def test_who_leaves_is_waited_for_no_more(path: Path, how: str) -> None:
    ended = asyncio.Event()

    async def answer(ticket: int, within_s: float) -> Word:
        begun.set()
        try:
            return await never(ticket, within_s)
        finally:
            ended.set()

    begun = asyncio.Event()

    async def test() -> None:
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(REQUEST.pack(MAGIC, 60_000, 1))
        await asyncio.wait_for(begun.wait(), 20)
        if how == "says more":
            writer.write(b"x")
        else:
            writer.close()
        await asyncio.wait_for(ended.wait(), 20)
        writer.close()

    served(path, answer, test)


def test_a_user_has_so_many_callers_and_there_is_room_when_one_leaves(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_server, "MOST_OF_USER", 3)

    async def test() -> None:
        streams = [await asyncio.open_unix_connection(path) for _ in range(3)]
        await asyncio.sleep(0.1)
        late = await asyncio.open_unix_connection(path)
        assert await heard(late) == (Said.BUSY, "too many wait already")
        streams[0][1].close()
        await asyncio.sleep(0.2)
        next_ = await asyncio.open_unix_connection(path)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(next_[0].read(1), 0.3)
        for _, writer in (*streams, late, next_):
            writer.close()

    served(path, never, test)


def test_a_fault_of_the_answer_ends_nobody_else(path: Path) -> None:
    async def answer(ticket: int, within_s: float) -> Word:
        if ticket == 1:
            raise RuntimeError("a fault")
        return Word(Said.READY)

    async def test() -> None:
        for ticket in (1, 2):
            stream = await asyncio.open_unix_connection(path)
            stream[1].write(REQUEST.pack(MAGIC, 1000, ticket))
            if ticket == 2:
                assert await heard(stream) == (Said.READY, "")
            else:
                assert await asyncio.wait_for(stream[0].read(), 20) == b""
            stream[1].close()

    served(path, answer, test)


def test_a_descriptor_that_lingers_holds_nobody_up(path: Path) -> None:
    """What answers is another thread than what reads, and where it can be it is refused."""

    async def answer(ticket: int, within_s: float) -> Word:
        return Word(Said.READY)

    def send_lingering() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            lingering = socket.create_connection(listener.getsockname())
            lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
            lingering.setblocking(False)
            try:
                while lingering.send(bytes(1 << 20)):
                    pass
            except BlockingIOError:
                pass
            with socket.socket(socket.AF_UNIX) as agent:
                agent.connect(str(path))
                try:
                    socket.send_fds(agent, [b"x" * REQUEST.size], [lingering.fileno()])
                except OSError:
                    os.close(lingering.detach())  # it is refused
                    return
                # Not closed here: the last reference is the message's.
                lingering.setblocking(True)

    async def main() -> None:
        async with WaitThread(str(path), waited(answer)):
            await asyncio.to_thread(send_lingering)
            assert await asyncio.wait_for(asyncio.sleep(0.5, "alive"), 5) == "alive"

    asyncio.run(main())


def test_a_socket_that_can_not_be_made_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    async def main() -> None:
        async with WaitThread(str(file), waited(never)):
            raise AssertionError

    with pytest.raises(ControlError, match="is no socket"):
        asyncio.run(main())


def test_the_applications_side_says_the_same() -> None:
    """It imports nothing of the agent's."""
    mine = {said.name: int(said) for said in Said}
    theirs = {said.name: int(said) for said in waiting.Said}
    assert mine.pop("CHANGED")  # not to who waits
    assert mine.pop("BUSY") == theirs.pop("UNREACHABLE")
    assert mine == theirs
    assert waiting._request(7, 1.5) == REQUEST.pack(MAGIC, 1500, 7)
    assert waiting._answer(Word(Said.FAILED, "why").encoded()) == (waiting.Said.FAILED, "why")
    assert waiting._LONGEST_S == wait_caller.LONGEST_S
    for garbage in (b"", b"x" * 7, ANSWER.pack(99, 0)):
        assert waiting._answer(garbage)[0] is waiting.Said.UNREACHABLE
