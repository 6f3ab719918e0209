"""What the configuration says of a delegation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final

from odm_agent.core.lifetimes import WITHOUT_END, Terms
from odm_agent.core.model import AddressType, Seat
from odm_agent.prefixes.managed import fits_any

#: The code that stands for the option of draft-moses-dmm-dhcp-ondemand-mobility-11, which never
#: was assigned one: the first of those for private use (RFC 8415, section 24, leaves 65001 free).
OPTION_CODE: Final = 65001
#: How many bits the prefix has that is asked for, if nothing else is said.
LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """One delegation: prefixes of these types may be asked for on an interface at a time.

    `interfaces` are names, or globs of such, the better ones first.
    `at_start` are held from the start on, whether somebody wants them or not. `untyped_as`: as
    which type a prefix serves whose type the network does not say; None: it is given back.
    `enterprise`: whose vendor option says the type, too; None: it is not sent. `first_instance`:
    where IAIDs of this delegation begin within those of a type, so that no two have the same.
    `release_s`: a prefix goes back when no socket has used it for so long; None: never. One that
    is held from the start on never does.
    `gateway` None: that of the interface's default route, or whoever gave the prefix. `per_socket`:
    of which types each socket has an address of its own; `seats`: of which each class has, and what
    it has then, without numbers.
    """

    name: str
    interfaces: tuple[str, ...]
    types: frozenset[AddressType]
    at_start: frozenset[AddressType] = frozenset()
    option_code: int = OPTION_CODE
    enterprise: int | None = None
    length: int = LENGTH
    preference: int = 0
    pool: int = 1
    untyped_as: AddressType | None = None
    first_instance: int = 0
    release_s: float | None = None
    terms: Mapping[AddressType, Terms] = field(default_factory=dict)
    gateway: IPv6Address | None = None
    forwarded: bool = False
    per_socket: frozenset[AddressType] = frozenset()
    seats: Mapping[AddressType, tuple[Seat, ...]] = field(default_factory=dict)

    def fits(self, interface: str) -> bool:
        """Whether it may be attached by an interface."""
        return fits_any(self.interfaces, interface)

    def terms_of(self, type_: AddressType) -> Terms:
        """How long addresses of a type serve."""
        return self.terms.get(type_, WITHOUT_END)
