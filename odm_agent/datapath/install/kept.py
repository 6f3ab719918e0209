"""What was compiled, kept for the next time: in a folder of files, each named for what made it.

A file serves only for the very same source, compiler, flags and kernel, and only if it is whole and
in a folder that none but root can change: what is in it is loaded into the kernel.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from odm_agent.core.errors import DatapathError
from odm_agent.datapath.install import c_text, compiled, functions
from odm_agent.datapath.install.compiled import Compiled
from odm_agent.folders import distrust

_SUFFIX: Final = ".compiled"
_UNFINISHED: Final = ".compiled-new"
#: So many files stay: a host has few kernels and versions at once.
_MOST_FILES: Final = 8
_DIGEST_SIZE: Final = 32


def key(flags: Sequence[str]) -> str:
    """A name for all on which the result of compiling depends."""
    digest = hashlib.sha256()
    for part in (*flags, *os.uname()[2:], _compiler_version()):
        digest.update(part.encode() + b"\0")
    sources = sorted(each for each in c_text.folder().rglob("*.[ch]") if each.is_file())
    for path in (*sources, Path(functions.__file__), Path(compiled.__file__)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _compiler_version() -> str:
    """Without importing it, which is dear."""
    spec = find_spec("bcc")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return "".join(Path(each, "version.py").read_text() for each in folders)


def read(folder: Path, name: str) -> Compiled | None:
    """What was kept under a name, if it is there, whole and to be trusted."""
    path = folder / f"{name}{_SUFFIX}"
    try:
        if distrust(path):
            return None
        data = path.read_bytes()
    except OSError:
        return None
    digest, content = data[:_DIGEST_SIZE], data[_DIGEST_SIZE:]
    if hashlib.sha256(content).digest() != digest:
        return None
    try:
        return msgspec.msgpack.decode(content, type=Compiled)
    except msgspec.MsgspecError:
        return None


def write(folder: Path, name: str, made: Compiled) -> None:
    """Keep it. DatapathError if that can't be done, or the folder is not root's alone."""
    content = msgspec.msgpack.encode(made)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if reason := distrust(folder):
            raise DatapathError(f"{reason}: others could change what is kept in {folder}")
        descriptor, temporary = tempfile.mkstemp(_UNFINISHED, name, folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            Path(temporary).rename(folder / f"{name}{_SUFFIX}")
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
        _forget_oldest(folder)
    except OSError as error:
        raise DatapathError(f"keeping what was compiled in {folder}: {error.strerror}") from error


def _forget_oldest(folder: Path) -> None:
    """Of what somebody has left unfinished, too."""
    for each in sorted(folder.glob(f"*{_SUFFIX}*"), key=_written_ns)[:-_MOST_FILES]:
        each.unlink(missing_ok=True)


def _written_ns(path: Path) -> int:
    """When; a file that is gone meanwhile was written long ago."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
