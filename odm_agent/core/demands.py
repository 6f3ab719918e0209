"""Who waits for an address, and what for."""

from dataclasses import dataclass

from odm_agent.core.grants import Want


@dataclass(frozen=True, slots=True, order=True)
class Wish:
    """What a socket that finds nothing asks for.

    `on_net`: an address that the network serves to which the host is attached now. `fresh`: another
    address than there are.
    """

    want: Want
    on_net: bool = False
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """Somebody waits until `until_s` (boot-time seconds), and is answered by the `ticket`.

    `want` None: for all addresses that there should be, as the start and each reload do. `on_net`
    and `fresh` as in `Wish`.
    """

    ticket: int
    want: Want | None
    until_s: float
    on_net: bool = False
    fresh: bool = False
