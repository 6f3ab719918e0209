"""Network namespaces of our own, and the links between them."""

import itertools
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

from tests.lab import run
from tests.lab.process import forked, threaded

P = ParamSpec("P")
R = TypeVar("R")

_numbers: Final = itertools.count(1)


def ip(*arguments: str) -> str:
    """Run `ip` and return its output; CalledProcessError carries stderr as its note."""
    return checked(["ip", *arguments])


def checked(command: Sequence[str], input: str | None = None, timeout_s: float = 30) -> str:
    """Run a command to its end and return stdout; a failure shows what it said."""
    done = subprocess.run(
        command, input=input, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        raise AssertionError(
            f"{' '.join(command)} -> {done.returncode}: {done.stderr}{input or ''}"
        )
    return done.stdout


class NetNs:
    """A named network namespace with `lo` up and duplicate address detection off by default."""

    def __init__(self, label: str, *, dad: bool = False) -> None:
        self.name = run.name(run.LAB, next(_numbers), label)
        self.path = Path("/run/netns") / self.name
        ip("netns", "add", self.name)
        try:
            self.ip("link", "set", "lo", "up")
            if not dad:
                for scope in ("all", "default"):
                    self.sysctl(f"net/ipv6/conf/{scope}/accept_dad", "0")
                    self.sysctl(f"net/ipv6/conf/{scope}/dad_transmits", "0")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the name; the kernel removes the namespace with its last process and socket."""
        if self.path.exists():
            ip("netns", "delete", self.name)

    def command(self, command: Sequence[str]) -> list[str]:
        """`command` as run inside. Not by `ip netns exec`: that hides cgroups and bpffs."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def run(self, command: Sequence[str], timeout_s: float = 30) -> str:
        """Run a command inside to its end, in our own cgroup, and return its stdout."""
        return checked(self.command(command), timeout_s=timeout_s)

    def ip(self, *arguments: str) -> str:
        """Run `ip` inside."""
        return ip("-n", self.name, *arguments)

    def batch(self, lines: str) -> None:
        """Run several `ip` commands, one a line, in one process."""
        checked(["ip", "-n", self.name, "-batch", "-"], input=lines)

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function inside (in a thread): sockets that it returns stay inside."""
        return threaded(self.path, function, *args, **kwargs)

    def fork(self, function: Callable[[], R], **options: Any) -> R:
        """Call a function inside, in a child process of its own (see `process.forked`)."""
        return forked(function, netns=self.path, **options)

    def sysctl(self, name: str, value: str) -> None:
        """Set a network sysctl inside, e.g. `net/ipv4/ip_forward`."""
        self.call((Path("/proc/sys") / name).write_text, value)


def veth(left: NetNs, left_name: str, right: NetNs, right_name: str) -> None:
    """Join two namespaces by a pair of up interfaces."""
    ip(
        *("link", "add", left_name, "netns", left.name, "type", "veth"),
        *("peer", "name", right_name, "netns", right.name),
    )
    left.ip("link", "set", left_name, "up")
    right.ip("link", "set", right_name, "up")


def address(netns: NetNs, interface: str, *addresses: str) -> None:
    """Configure addresses (`address/length`), new or there already, that can be used at once."""
    netns.batch(
        "".join(
            f"address replace {each} dev {interface}{' nodad' if ':' in each else ''}\n"
            for each in addresses
        )
    )
