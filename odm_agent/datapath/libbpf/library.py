"""The system's libbpf, loaded when it is first needed, and what it says when it fails."""

import ctypes as ct
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from odm_agent.core.errors import DatapathError

#: By its name and not by ctypes' search, which runs programs that it finds in PATH.
LIBRARY: Final = "libbpf.so.1"


@cache
def library() -> ct.CDLL:
    """libbpf; DatapathError if it is not installed."""
    try:
        loaded = ct.CDLL(LIBRARY, use_errno=True)
    except OSError as error:
        raise DatapathError(f"loading libbpf: {error}; install the package libbpf1") from error
    loaded.libbpf_set_print(None)  # what it would print is raised
    return loaded


def call(function: str, *arguments: object, doing: str) -> int:
    """What a function of libbpf returns; DatapathError if that is negative."""
    return check(getattr(library(), function)(*arguments), doing)


def check(result: int, doing: str) -> int:
    """The result; DatapathError if that is negative."""
    if result < 0:
        code = -result if result != -1 else ct.get_errno()
        raise DatapathError(f"{doing}: {os.strerror(code)}") from OSError(code, os.strerror(code))
    return result


@contextmanager
def os_errors(doing: str) -> Iterator[None]:
    """Whatever the operating system refuses within is a DatapathError (`error_code` has why)."""
    try:
        yield
    except OSError as error:
        raise DatapathError(f"{doing}: {error.strerror or error}") from error


def error_code(error: DatapathError) -> int:
    """The errno behind an error of this module, 0 if there is none."""
    cause = error.__cause__
    return cause.errno or 0 if isinstance(cause, OSError) else 0
