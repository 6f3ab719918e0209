"""Processes that we start: they run this package or the distribution's programs, nothing else.

They are root's. Python looks for modules in the current directory (`-m`), in what PYTHON*
variables name and in the user's site folder; whoever can write there would be root. So the
interpreter is isolated (`-I`), and is told the one folder in which this very package lies, which
may be a checkout that nobody installed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

from odm_agent.core.errors import OdmError

_PACKAGE: Final = Path(__file__).resolve().parent
# The folder is named for the package alone: what else lies in it hides no other module.
_START: Final = (
    "import runpy, sys; folder, module = sys.argv[1:3]; del sys.argv[1:3];"
    f" sys.path.insert(0, folder); import {_PACKAGE.name}; sys.path.remove(folder);"
    " runpy.run_module(module, run_name='__main__', alter_sys=True)"
)
#: What compiles and loads the eBPF programs (it alone knows the compiler, so it isn't imported).
LOADER: Final = "odm_agent.datapath.install.loader"
#: The agent that serves.
AGENT: Final = "odm_agent.daemon"
#: Where the distribution keeps its programs. The caller's PATH may name folders of others.
_PROGRAMS: Final = "/usr/sbin:/usr/bin:/sbin:/bin"


class TooSlow(OdmError):
    """What we started did not end in time."""


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this package, wherever it is called."""
    return [sys.executable, "-I", "-c", _START, str(_PACKAGE.parent), module, *arguments]


def become(module: str, *arguments: str) -> NoReturn:
    """Run a module of this package in the place of what runs here, as the same process."""
    line = command(module, *arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(line[0], line)


def run(
    module: str, *arguments: str, timeout_s: float, pass_fds: tuple[int, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run a module of this package to its end, in `/`; TooSlow if it takes longer than that."""
    try:
        return subprocess.run(
            command(module, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            pass_fds=pass_fds,
            cwd="/",
            env={**os.environ, "PATH": _PROGRAMS},
        )
    except subprocess.TimeoutExpired as error:
        raise TooSlow(
            f"{module} was ended, since it took longer than {timeout_s:.0f} s; try again when the"
            " host is less busy"
        ) from error


def program(name: str) -> str:
    """The path of a program of the distribution; OdmError if it isn't there."""
    if found := shutil.which(name, path=_PROGRAMS):
        return found
    raise OdmError(f"{name} is not in {_PROGRAMS}; install the package that it belongs to")
