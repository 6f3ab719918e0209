"""Who watches hears that something has changed; one word at a time, and no more than his share."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from odm_agent.control import watchers
from odm_agent.control.wait_caller import ANSWER, REQUEST, WATCH, Answers, Said, Word
from odm_agent.control.wait_server import WaitServer
from odm_agent.control.wait_thread import WaitThread

_CHANGED = Word(Said.CHANGED).encoded()
Test = Callable[[WaitServer], Awaitable[None]]


async def _never(ticket: int, within_s: float) -> Word:
    await asyncio.sleep(3600)
    raise AssertionError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wait" / "wait.sock"


def _served(path: Path, test: Test) -> None:
    async def main() -> None:
        async with WaitServer(str(path), Answers(lambda _: None, _never)) as server:
            await test(server)

    asyncio.run(main())


async def _watching(path: Path) -> socket.socket:
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    agent.setblocking(False)
    await asyncio.get_running_loop().sock_connect(agent, str(path))
    await asyncio.get_running_loop().sock_sendall(agent, REQUEST.pack(WATCH, 0, 0))
    return agent


async def _heard(agent: socket.socket) -> bytes:
    """All that there is to read, once there is something."""
    loop = asyncio.get_running_loop()
    return await asyncio.wait_for(loop.sock_recv(agent, 4096), 20)


def _unread(agent: socket.socket) -> bytes:
    try:
        return agent.recv(4096)
    except BlockingIOError:
        return b""


def test_he_hears_a_word_at_once_and_one_for_each_change(path: Path) -> None:
    async def test(server: WaitServer) -> None:
        with await _watching(path) as agent:
            assert await _heard(agent) == _CHANGED
            for _ in range(3):
                server.tell_change()
                assert await _heard(agent) == _CHANGED

    _served(path, test)


def test_many_changes_are_one_word_that_comes_after_the_last(path: Path) -> None:
    async def test(server: WaitServer) -> None:
        with await _watching(path) as agent:
            assert await _heard(agent) == _CHANGED
            for _ in range(1000):
                server.tell_change()
            assert await _heard(agent) == _CHANGED  # of the first
            assert await _heard(agent) == _CHANGED  # of the last, after the pause
            await asyncio.sleep(0.1)
            assert _unread(agent) == b""

    _served(path, test)


def test_who_does_not_read_holds_one_word_and_hears_the_next_change(path: Path) -> None:
    async def test(server: WaitServer) -> None:
        with await _watching(path) as slow, await _watching(path) as quick:
            await _heard(quick)
            for _ in range(20):
                server.tell_change()
                await _heard(quick)
            assert await _heard(slow) == _CHANGED
            await asyncio.sleep(0.1)
            server.tell_change()
            assert await _heard(slow) == _CHANGED

    _served(path, test)


def test_the_end_of_the_agent_is_the_end_of_what_is_read(path: Path) -> None:
    found: list[socket.socket] = []

    async def test(server: WaitServer) -> None:
        found.append(await _watching(path))
        assert await _heard(found[0]) == _CHANGED

    _served(path, test)
    with found[0] as agent:
        assert agent.recv(16) == b""


@pytest.mark.parametrize("more", [b"x", bytes(4096)], ids=["a byte", "a lot"])
def test_who_says_more_watches_no_more(path: Path, more: bytes) -> None:
    async def test(server: WaitServer) -> None:
        with await _watching(path) as agent:
            assert await _heard(agent) == _CHANGED
            agent.send(more)
            with suppress(ConnectionResetError):  # what he said more is not read
                assert await _heard(agent) == b""
            server.tell_change()

    _served(path, test)


def test_one_user_has_his_share_and_who_waits_is_not_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "MOST_OF_USER", 3)

    async def test(server: WaitServer) -> None:
        with ExitStack() as stack:
            for _ in range(3):
                agent = stack.enter_context(await _watching(path))
                assert await _heard(agent) == _CHANGED
            with await _watching(path) as refused:
                said, _ = ANSWER.unpack((await _heard(refused))[: ANSWER.size])
                assert said == Said.BUSY
                assert await _heard(refused) == b""
            agent.close()
            await asyncio.sleep(0.1)
            again = stack.enter_context(await _watching(path))
            assert await _heard(again) == _CHANGED

    _served(path, test)


def test_all_together_have_a_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "MOST_WATCHERS", 1)

    async def test(server: WaitServer) -> None:
        with await _watching(path) as first, await _watching(path) as second:
            assert await _heard(first) == _CHANGED
            assert ANSWER.unpack((await _heard(second))[: ANSWER.size])[0] == Said.BUSY

    _served(path, test)


def test_who_is_gone_while_he_is_told_disturbs_nobody(path: Path) -> None:
    async def test(server: WaitServer) -> None:
        with await _watching(path) as stays:
            await _heard(stays)
            for _ in range(50):
                gone = await _watching(path)
                await _heard(gone)
                gone.close()
                server.tell_change()
                assert await _heard(stays) == _CHANGED

    _served(path, test)


def test_no_thread_is_woken_while_nobody_watches(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with WaitThread(str(path), Answers(lambda _: None, _never)) as thread:
            woken: list[object] = []
            wake = thread._loop.call_soon_threadsafe

            def counted(callback: Callable[..., object], *more: Any) -> object:
                woken.append(callback)
                return wake(callback, *more)

            monkeypatch.setattr(thread._loop, "call_soon_threadsafe", counted)
            thread.tell_change()
            assert not woken
            with await _watching(path) as agent:
                assert await _heard(agent) == _CHANGED
                thread.tell_change()
                assert await _heard(agent) == _CHANGED
            while thread._server.is_watched:
                await asyncio.sleep(0.01)
            woken.clear()
            thread.tell_change()
            assert not woken

    asyncio.run(main())
