"""The correspondent of the soak: it checks each source itself, by what the caller says that it is.

Run as a program it serves TCP and UDP on PORT of each address given and ends with stdin; then a
line of JSON says how many came, and every violation.

A caller's line is `CLASS EXPECTED`: the word of a type, or `untyped`. Each line and each datagram
is answered with `ok` or with what is wrong.
"""

import asyncio
import json
import sys
from collections import Counter
from typing import Any, Final

from odm_agent.core.model import AddressType
from tests.lab.host import type_of
from tests.lab.peer import plain
from tests.soak.classes import allowed

PORT: Final = 7100
_MOST_VIOLATIONS: Final = 50


class Judge:
    """What was seen, and what was wrong with it."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.violations: list[str] = []

    def answer(self, transport: str, source: str, line: str) -> bytes:
        """`ok`, or what is wrong, to a caller who says `CLASS EXPECTED`."""
        name, _, expected = line.strip().partition(" ")
        found = type_of(plain(source))
        self.seen[f"{name} {found.word if found else 'untyped'}"] += 1
        wrong = _wrong(name, expected, found)
        if wrong is None:
            return b"ok\n"
        text = f"{transport} from {plain(source)} of {name}: {wrong}"
        if len(self.violations) < _MOST_VIOLATIONS:
            self.violations.append(text)
        return f"{text}\n".encode()


def _wrong(name: str, expected: str, found: AddressType) -> str | None:
    if found and found not in allowed(name) and name != "audited":
        return f"the class may not use {found.word}"
    word = found.word if found else "untyped"
    return None if word == expected else f"{word} instead of {expected}"


async def _stream(judge: Judge, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    source = str(writer.get_extra_info("peername")[0])
    try:
        while line := await reader.readline():
            writer.write(judge.answer("tcp", source, line.decode(errors="replace")))
            await writer.drain()
    except OSError:
        pass  # reset: callers end in all ways
    finally:
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        text = self._judge.answer("udp", addr[0], data.decode(errors="replace"))
        self._transport.sendto(text, addr)


async def _serve(addresses: list[str]) -> Judge:
    judge = Judge()
    loop = asyncio.get_running_loop()
    for address in addresses:
        await asyncio.start_server(lambda r, w: _stream(judge, r, w), address, PORT, backlog=4096)
        await loop.create_datagram_endpoint(lambda: _Datagrams(judge), local_addr=(address, PORT))
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    return judge


if __name__ == "__main__":
    result = asyncio.run(_serve(sys.argv[1:]))
    print(json.dumps({"seen": result.seen, "violations": result.violations}), flush=True)
