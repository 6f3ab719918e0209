"""The program that refuses packet and XDP sockets of closed classes when they are created.

No cgroup hook runs for these sockets, so it stands where the kernel asks its security modules. It
is attached by a link, pinned at `DIR/odm_creation`. Such a link can neither take another program
nor be detached: one more is made before the old one's pin goes.

Not every kernel runs such programs (some load them and never call them), so that is tried.
"""

import errno
import socket
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from odm_agent.core.errors import DatapathError
from odm_agent.datapath import libbpf

#: The program, and its link's pin.
PROGRAM: Final = "odm_creation"
#: What it means that the kernel runs no such program.
LACKING: Final = (
    "this kernel runs no program at the creation of sockets: classes that refuse packet or XDP"
    " sockets open them, and are refused as far as later hooks see what they set and send"
)


class Way(NamedTuple):
    """Where the program may stand: `type` is a bpf_prog_type, `attach_type` a bpf_attach_type."""

    function: str
    type: int
    attach_type: int
    #: Whether it runs every time. The other is left out for a task that comes in while another one
    #: is in it on the same CPU, which may be where the kernel preempts tasks.
    always: bool


#: A hook of the BPF security module, and one on the call of all modules. The best first.
WAYS: Final = (
    Way("socket_create", 29, 27, always=True),
    Way("security_socket_create", 26, 26, always=False),
)

#: What the C calls an offset -> the struct and member that it is of.
_OFFSETS: Final = {
    "ODM_TASK_NSPROXY": ("task_struct", "nsproxy"),
    "ODM_NSPROXY_NET": ("nsproxy", "net_ns"),
    "ODM_NET_COOKIE": ("net", "net_cookie"),
}
#: No socket is of family 0; with this protocol, nobody but us asks for one.
_NO_PROTOCOL: Final = 0x08653000
_TOLD: Final = errno.EXDEV


@cache
def compiler_flags() -> tuple[str, ...]:
    """What the program must be told of the running kernel; empty: it can't be compiled."""
    found = libbpf.struct_offsets({struct: (member,) for struct, member in _OFFSETS.values()})
    if not all(place in found for place in _OFFSETS.values()):
        return ()
    return (
        "-DODM_WITH_CREATION",
        *(f"-D{name}={found[place]}" for name, place in _OFFSETS.items()),
    )


def way() -> Way | None:
    """Where this kernel runs it, tried with a program that refuses a socket nobody wants."""
    return next((each for each in WAYS if not _hindrance(each)), None) if compiler_flags() else None


def hindrances() -> str:
    """Why it runs at none of these places, for people; empty if it runs at one."""
    if not compiler_flags():
        return "the kernel does not say where it keeps the network namespace of a task (BTF)"
    found = [_hindrance(each) for each in WAYS]
    return "; ".join(found) if all(found) else ""


def load(way: Way, instructions: bytes, types: bytes = b"", functions: bytes = b"") -> int:
    """A descriptor of the program, compiled and linked (`compiled.Linked`); DatapathError."""
    return libbpf.load(
        PROGRAM,
        way.type,
        way.attach_type,
        instructions,
        types=types,
        functions=functions,
        at_function=way.function,
    )


def _hindrance(way: Way) -> str:
    """Why the kernel runs no program at this place; empty if it does."""
    code = libbpf.instruction
    # r2 = family; r0 = 0; leave unless it is 0; r2 = protocol; leave unless it is ours; r0 = -told
    program = (
        code(0x79, to=2, of=1, offset=0),
        code(0xB7, to=0, immediate=0),
        code(0x56, to=2, offset=3, immediate=0),
        code(0x79, to=2, of=1, offset=16),
        code(0x56, to=2, offset=1, immediate=_NO_PROTOCOL),
        code(0xB7, to=0, immediate=-_TOLD),
        code(0x95),
    )
    try:
        with (
            libbpf.opened(load(way, b"".join(program))) as prog_fd,
            libbpf.opened(libbpf.link_create(prog_fd, 0, way.attach_type)),
        ):
            if _creation_fails_with() != _TOLD:
                return f"the kernel never calls a program at its function {way.function}"
    except DatapathError as error:
        return str(error)
    return ""


def _creation_fails_with() -> int:
    try:
        socket.socket(socket.AF_UNSPEC, socket.SOCK_RAW, _NO_PROTOCOL).close()
    except OSError as error:
        return error.errno or 0
    return 0


def in_force(pin_dir: Path) -> bool:
    """Whether the program is attached."""
    return (pin_dir / PROGRAM).exists()


def complete(pin_dir: Path) -> bool:
    """Whether it is attached, or can't be on this kernel."""
    return in_force(pin_dir) or way() is None


def install(pin_dir: Path, folder: Path) -> None:
    """Attach the program that waits in `folder`, if any, in the place of an older one.

    For a moment both are there; none never.
    """
    found = libbpf.find_pinned(folder / "programs" / PROGRAM)
    if found is None:
        (pin_dir / PROGRAM).unlink(missing_ok=True)
        return
    with libbpf.opened(found) as prog_fd:
        kind = libbpf.prog_info(prog_fd).type
        attach_type = next(each.attach_type for each in WAYS if each.type == kind)
        link_fd = libbpf.link_create(prog_fd, 0, attach_type)
    with libbpf.opened(link_fd):
        libbpf.pin(link_fd, folder / PROGRAM)
    (folder / PROGRAM).rename(pin_dir / PROGRAM)
