"""How a delegation stands with its network, for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Final, Literal

from odm_agent.core.lifetimes import Lifetime
from odm_agent.core.model import AddressType
from odm_agent.sources.dhcpv6.binding import Binding
from odm_agent.sources.dhcpv6.transitions import ASKING, State

#: `idle`: nothing is asked for. `confirming`: held, and the network is asked whether it still is.
Word = Literal[
    "idle", "asking", "bound", "renewing", "confirming", "waiting", "unserved", "releasing"
]


@dataclass(frozen=True, slots=True)
class Standing:
    """A type that may be asked for, and a prefix of it that is held, if there is one.

    `waiting`: it is held while the link is down; `unserved`: while the present network does not
    serve it. `server`: its DUID; `router`: who passed it on. `asked_s` is since when the
    network is asked (boot time); `trouble` why it last gave nothing.
    """

    type: AddressType
    state: Word
    network: IPv6Network | None = None
    lifetime: Lifetime | None = None
    server: bytes | None = None
    router: IPv6Address | None = None
    asked_s: float | None = None
    trouble: str = ""


def standing_of(binding: Binding, troubles: Mapping[AddressType, str]) -> Standing:
    """How it is with one binding."""
    held = binding.held if binding.is_held else None
    return Standing(
        type=binding.type,
        state="asking" if binding.state in ASKING else _WORDS[binding.state],
        network=held.network if held else None,
        lifetime=held.lifetime if held else None,
        server=binding.server,
        router=held.gateway if held else None,
        asked_s=binding.asked_s,
        trouble=troubles.get(binding.type, ""),
    )


_WORDS: Final[Mapping[State, Word]] = {
    State.LEAVING: "releasing",
    State.BOUND: "bound",
    State.RENEWING: "renewing",
    State.REBINDING: "renewing",
    State.CONFIRMING: "confirming",
    State.RESTORING: "confirming",
    State.DETACHED: "waiting",
    State.UNSERVED: "unserved",
    State.RELEASING: "releasing",
    State.ENDED: "idle",
}
