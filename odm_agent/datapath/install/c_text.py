"""The C source as one text: what is compiled, and what its hash names."""

import hashlib
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from odm_agent.core.errors import DatapathError

_INCLUDE: Final = re.compile(r'#include "([^"/]+)"')


@cache
def folder() -> Path:
    """The folder bpf/: beside the package in a checkout, inside it when installed."""
    package = Path(str(resources.files("odm_agent")))
    for candidate in (package / "_bpf", package.parent / "bpf"):
        if (candidate / "odm.c").is_file():
            return candidate
    raise DatapathError(f"the eBPF source is not where it was installed ({package / '_bpf'})")


@cache
def amalgamated() -> str:
    """odm.c with its local includes in their places, so that BCC treats all of it alike.

    #line keeps messages of the compiler and the verifier pointing at the real files.
    """
    return _expand("odm.c", set())


def source_hash() -> bytes:
    """SHA-256 of what is compiled (32 bytes)."""
    return hashlib.sha256(amalgamated().encode()).digest()


def _expand(name: str, seen: set[str]) -> str:
    if name in seen:
        return ""
    seen.add(name)
    lines = [f'#line 1 "bpf/{name}"\n']
    for number, line in enumerate((folder() / name).read_text().splitlines(keepends=True), 1):
        if match := _INCLUDE.match(line):
            lines += [_expand(match[1], seen), f'#line {number + 1} "bpf/{name}"\n']
        else:
            lines.append(line)
    return "".join(lines)
