"""The identifier by which DHCP servers know this host (RFC 8415, section 11), kept for ever.

It stands in a file of its own, since it must outlive the database. Whoever gets another one is
another host to its networks, and loses its prefixes: so what can't be read is told, not replaced.
"""

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from odm_agent.journal.errors import JournalError

NAME: Final = "duid"
#: DUID-UUID (RFC 6355).
_TYPE_UUID: Final = b"\x00\x04"
_MACHINE_ID: Final = Path("/etc/machine-id")
_IS_MACHINE_ID: Final = re.compile(r"[0-9a-f]{32}\n?")
#: What our identifiers are made of besides: those of other programs on this host are others.
_SALT: Final = b"odm-agent DHCPv6 DUID"
#: The type, and a UUID, in hexadecimal.
_KEPT: Final = re.compile(r"0004[0-9a-f]{32}\n")


def host_duid(folder: Path, machine_id: Path = _MACHINE_ID) -> bytes:
    """The identifier that is kept in a folder, made now if there is none. Raises JournalError."""
    path = folder / NAME
    try:
        try:
            kept = path.read_text("ascii", "replace")
        except FileNotFoundError:
            kept = _made(folder, machine_id).hex() + "\n"
            _keep(path, kept)
    except OSError as error:
        raise JournalError(
            f"{path}: this host's DHCP identifier can't be kept: {error.strerror}; make room, or"
            " let root write there"
        ) from error
    if not _KEPT.fullmatch(kept):
        raise JournalError(
            f"{path}: this is no DHCP identifier (a line of 36 hexadecimal digits that begins with"
            " 0004); restore it from a backup, or remove it: then networks take this host for"
            " another one, and its prefixes are lost"
        )
    return bytes.fromhex(kept)


def _made(folder: Path, machine_id: Path) -> bytes:
    """Of the machine's own number and the folder, so that it is the same if the file is lost.

    Agents of two network namespaces have two folders, and are two hosts.
    """
    text = ""
    with suppress(OSError):
        text = machine_id.read_text("ascii", "replace")
    number = text.strip().encode() if _IS_MACHINE_ID.fullmatch(text) else os.urandom(16)
    mixed = hashlib.sha256(b"\0".join((_SALT, number, os.fsencode(folder.absolute()))))
    uuid = bytearray(mixed.digest()[:16])
    uuid[6] = uuid[6] & 0x0F | 0x80  # version 8 and variant (RFC 9562, section 5.8)
    uuid[8] = uuid[8] & 0x3F | 0x80
    return _TYPE_UUID + bytes(uuid)


def _keep(path: Path, text: str) -> None:
    """Write it so that it is there as a whole or not at all, whenever the host stops."""
    draft = path.with_suffix(".new")
    with open(draft, "w", encoding="ascii", opener=_for_root) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _for_root(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
