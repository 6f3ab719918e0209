"""What a technique is, and what it is given: a class that tries, and an address it may not use."""

import errno
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from odm_agent.core.model import AddressType, Family
from tests.lab.client import PORT, outcome
from tests.lab.host import CORRESPONDENT, CORRESPONDENT_2, FIXED, PREFIXES, SESSION, LabPrefix
from tests.lab.place import Place, Ready
from tests.lab.world import World
from tests.rfc8653.bypass.privileges import become

#: How long an application waits for an answer that may never come.
PATIENCE_S: Final = 0.4
#: Payload of everything that a technique sends.
DATA: Final = b"bypass"


class Form(Enum):
    """The IP version on the wire, and whether an IPv6 socket speaks it by mapped addresses."""

    IPV6 = "IPv6"
    IPV4 = "IPv4"
    MAPPED = "mapped"

    @property
    def family(self) -> Family:
        """The IP version on the wire."""
        return Family.IPV6 if self is Form.IPV6 else Family.IPV4

    @property
    def af(self) -> socket.AddressFamily:
        """The socket's address family."""
        return socket.AF_INET if self is Form.IPV4 else socket.AF_INET6

    def spell(self, address: str) -> str:
        """An address as the socket writes it."""
        return f"::ffff:{address}" if self is Form.MAPPED else address


ALL: Final = tuple(Form)
BOTH: Final = (Form.IPV6, Form.IPV4)
SIX: Final = (Form.IPV6,)
FOUR: Final = (Form.IPV4,)
MAPPED: Final = (Form.MAPPED,)


class Absent(Exception):
    """This kernel doesn't have what the technique needs."""


@dataclass(frozen=True)
class Stage:
    """Where a technique is tried. `type` is the one whose address it is after.

    The addresses are found out beforehand: who tries has no right to ask the agent.
    """

    world: World
    name: str
    form: Form
    needs: str
    type: AddressType
    plain: str
    ordinary: str

    @classmethod
    def of(
        cls, world: World, name: str, form: Form, needs: str = "", type: AddressType = FIXED
    ) -> "Stage":
        """A stage for one attempt by the class `name`."""
        typed = world.address(type, form.family)
        untyped = world.address(AddressType.UNSPECIFIED, form.family)
        return cls(world, name, form, needs, type, typed, form.spell(untyped))

    @property
    def place(self) -> Place:
        """The class that tries."""
        return self.world.place(self.name)

    def in_class(self, name: str) -> "Stage":
        """The same, tried by another class."""
        return replace(self, name=name)

    @property
    def prefix(self) -> LabPrefix:
        """The prefix that the address belongs to."""
        family = self.form.family
        return next(each for each in PREFIXES if (each.type, each.family) == (self.type, family))

    @property
    def source(self) -> str:
        """The typed address, as the socket writes it."""
        return self.form.spell(self.plain)

    @property
    def unused(self) -> str:
        """An address of the typed prefix that nothing configures."""
        return str(self.prefix.unused())

    @property
    def to(self) -> tuple[str, int]:
        """The correspondent."""
        return self.form.spell(CORRESPONDENT[self.form.family]), PORT

    @property
    def other(self) -> str:
        """The correspondent's second address, for which techniques make routes of their own."""
        return CORRESPONDENT_2[self.form.family]

    @property
    def bits(self) -> int:
        """The length of a host route."""
        return 128 if self.form is Form.IPV6 else 32

    def tcp(self, protocol: int = 0) -> socket.socket:
        """A new stream socket."""
        return self._open(socket.SOCK_STREAM, protocol)

    def udp(self, protocol: int = 0) -> socket.socket:
        """A new datagram socket."""
        return self._open(socket.SOCK_DGRAM, protocol)

    def raw(self, protocol: int) -> socket.socket:
        """A new raw socket."""
        return self._open(socket.SOCK_RAW, protocol)

    def _open(self, kind: socket.SocketKind, protocol: int) -> socket.socket:
        try:
            sock = socket.socket(self.form.af, kind, protocol)
        except OSError as error:
            raise absent(error) from None
        sock.settimeout(PATIENCE_S)
        return sock

    def do(self, function: Callable[[], object]) -> str:
        """What the application `function` is told, run with no more privileges than it needs."""

        def application() -> str:
            become(self.needs)
            return outcome(function)

        try:
            return self.place.do(application)
        except Absent:
            return ABSENT

    def beside(self, function: Callable[[Ready], None]) -> Callable[[Ready], None]:
        """A background function with no more privileges than it needs."""

        def application(ready: Ready) -> None:
            become(self.needs)
            function(ready)

        return application


def absent(error: OSError) -> Exception:
    """Absent if the error says that the kernel has no such thing, else the error itself."""
    missing = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT)
    return Absent(str(error)) if error.errno in missing else error


ABSENT: Final = "absent"
Act = Callable[[Stage], str]


def application(function: Callable[[Stage], object]) -> Act:
    """The whole technique is what one application does."""
    return lambda stage: stage.do(lambda: function(stage))


class Result(Enum):
    """What became of it, in the page's words."""

    STOPPED = "refused"
    UNTYPED = "goes on, untyped"
    KERNEL = "refused by the kernel itself"
    NOTHING = "nothing leaves"
    ABSENT = "this kernel has it not"
    OPEN = "**open**"
    KERNELS = "the kernel's own"
    UNKNOWN = "**not measured**"


@dataclass(frozen=True)
class Expect:
    """What must come of a technique: the hooks that catch it, and what the application is told."""

    result: Result
    hook: str = ""
    told: str = "ok"
    #: What catches it, where that counts nothing.
    by: str = ""


def refused(hook: str, told: str = "EACCES") -> Expect:
    """Caught by `hook`."""
    return Expect(Result.STOPPED, hook, told)


UNTYPED: Final = Expect(Result.UNTYPED)
OPEN: Final = Expect(Result.OPEN)


@dataclass(frozen=True)
class Technique:
    """One row of the table (one for each outcome, if the forms differ)."""

    slug: str
    words: str
    act: Act
    expect: Expect | Mapping[Form, Expect]
    forms: tuple[Form, ...] = BOTH
    #: A capability, "root" for more than one, or nothing: what the technique can't do without.
    needs: str = ""
    #: Why it can't be shown to work where it is allowed; "" if it is shown.
    no_control: str = ""
    #: The type after which it is shown to work: one of the gateway whose link it uses.
    control: AddressType = SESSION
    #: Of a technique that stays open: why, and what can be done.
    remedy: str = ""
    #: The word of the class option that closes it ("raw"), and what catches it then.
    closed_by: str = ""
    closed: Expect | None = None
    #: A class with a default type gets that type's address by the same call.
    own: bool = False
    #: Of packets that the kernel sends by itself, whatever class.
    kernels: bool = False
    #: The socket was made before the agent was started.
    older: bool = False
    #: Whose typed packets are on the wire, if not those of the class that tries.
    others: str = ""
    #: It leads packets of a class with a default type, from its own source, to another uplink.
    astray: bool = False

    def expected(self, form: Form) -> Expect:
        """What must come of it in one form."""
        return self.expect if isinstance(self.expect, Expect) else self.expect[form]
