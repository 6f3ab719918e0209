"""Starts a command in a cgroup, perhaps as another user, and waits for it as a shell would."""

import os
import pwd
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import typer

from odm_agent.cli.output import say
from odm_agent.core.errors import KernelError

FORWARDED: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
#: What a shell returns for a command that it finds but cannot start, and for one it cannot find.
CANNOT_START: Final = 126
NOT_FOUND: Final = 127
#: siginfo.si_code of signals that the kernel sends, e.g. for Ctrl-C to all of the terminal's group.
SI_KERNEL: Final = 0x80


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a command runs as."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str

    def become(self) -> None:
        """Give up root for this user, in the order in which each step is still allowed."""
        os.initgroups(self.name, self.gid)
        os.setgid(self.gid)
        os.setuid(self.uid)
        for name, value in (("USER", self.name), ("LOGNAME", self.name)):
            os.environ[name] = value
        os.environ |= {"HOME": self.home, "SHELL": self.shell}


def identity_of(user: str | None) -> Identity | None:
    """The user called (or numbered) `user`; a usage error if there is none."""
    if user is None:
        return None
    try:
        found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise typer.BadParameter(f"this host knows no user {user!r}") from None
    return Identity(found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir, found.pw_shell)


def run_command(argv: list[str], cgroup: Path, identity: Identity | None = None) -> int:
    """The exit code of `argv`, run in `cgroup`: its own, 128 + signal, or 126 or 127.

    SIGINT, SIGTERM and SIGHUP sent to this process reach the command. Raises KernelError when the
    command's process cannot enter the cgroup or take on the identity.
    """
    watched = frozenset({*FORWARDED, signal.SIGCHLD})
    # Blocked before the fork, so that no signal comes between it and the wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    reading, writing = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            os.close(reading)
            _become_command(argv, cgroup, identity, writing, before)
        os.close(writing)
        code = _wait(child, watched)
        with os.fdopen(reading, "rb", closefd=False) as pipe:
            trouble = pipe.read().decode()
    finally:
        os.close(reading)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if trouble.startswith("cannot start "):
        say(f"odm-agent: {trouble}", err=True)
    elif trouble:
        raise KernelError(trouble)
    return code


def _become_command(
    argv: list[str],
    cgroup: Path,
    identity: Identity | None,
    writing: int,
    mask: set[int | signal.Signals],
) -> NoReturn:
    """The child: cgroup, identity, command. Words on the pipe say what failed; exec closes it."""
    doing, code = f"entering the cgroup {cgroup}", CANNOT_START
    try:
        (cgroup / "cgroup.procs").write_text("0")
        if identity is not None:
            doing = f"becoming the user {identity.name}"
            identity.become()
        doing = f"cannot start {argv[0]}"
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Python ignores SIGPIPE and SIGXFSZ; a command expects the defaults.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execvp(argv[0], argv)
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_START
        os.write(writing, f"{doing}: {error.strerror}".encode())
    except BaseException as error:
        os.write(writing, f"{doing}: {error!r}".encode())
    os._exit(code)


def _wait(child: int, watched: frozenset[signal.Signals]) -> int:
    """Forward signals to the child until it has ended; its exit code as a shell puts it."""
    while True:
        got = signal.sigwaitinfo(watched)
        if got.si_signo != signal.SIGCHLD:
            # The terminal's Ctrl-C has reached the command already: it is in our process group.
            if got.si_code != SI_KERNEL:
                os.kill(child, got.si_signo)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
