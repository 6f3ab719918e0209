"""A source of prefixes with a protocol as small as can be, and the server that it talks to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network

from odm_agent.core import trace
from odm_agent.core.clock import Moment
from odm_agent.core.effects import GiveBack, Release, Request
from odm_agent.core.events import Failed, Granted, Tick, Withdrawn
from odm_agent.core.grants import Grant, GrantKey, Want
from odm_agent.core.lifetimes import Lifetime
from odm_agent.core.model import AddressType, Family, Placement, TypedPrefix
from odm_agent.sources.base import Input, Output, Received, Send

NAME = "script"
#: How often a request is sent, and how far apart.
SENT = 3
APART_S = 2.0


def grant(number: int, want: Want, lifetime: Lifetime, on_link: bool = False) -> Grant:
    """The grant of a number: each has a network of its own, without an id."""
    type_, family = want
    network: IPv4Network | IPv6Network = IPv6Network(f"2001:db8:{number:x}::/64")
    if family is Family.IPV4:
        network = IPv4Network(((10 << 24) + (number << 4), 28))
    placement = Placement.ON_LINK if on_link else Placement.DELEGATED
    prefix = TypedPrefix(
        *(0, f"g{number}", type_, network, "w0", None, placement, (ip_network(network),)),
        order=1000 + number,
    )
    return Grant(GrantKey(NAME, f"g{number}"), prefix, lifetime)


@dataclass
class _Waiting:
    left: int
    again_s: float


class ScriptedSource:
    """Sends what is requested to the server until it answers; hands on what the server says."""

    name = NAME

    def __init__(self) -> None:
        self._waiting: dict[Want, _Waiting] = {}

    def step(self, given: Input, now: Moment) -> Sequence[Output]:
        match given:
            case Request(want):
                self._waiting[want] = _Waiting(SENT, now.boot_s)
                return self._due(now)
            case Release(want):
                self._waiting.pop(want, None)
            case GiveBack(key):
                return [Send(trace.spelled(key).encode(), "server")]
            case Received(data, _):
                return self._heard(trace.value_of(data.decode()))
            case Tick():
                return self._due(now)
        return []

    def deadline(self) -> float | None:
        return min((each.again_s for each in self._waiting.values()), default=None)

    def _heard(self, said: Granted | Withdrawn | Failed) -> list[Output]:
        if isinstance(said, Granted):
            self._waiting.pop(said.grant.want, None)
        if isinstance(said, Failed) and self._waiting.pop(said.want, None) is None:
            return []
        return [said]

    def _due(self, now: Moment) -> list[Output]:
        said: list[Output] = []
        for want, each in list(self._waiting.items()):
            if each.again_s > now.boot_s:
                continue
            if not each.left:
                del self._waiting[want]
                said.append(Failed(want, "the server does not answer"))
                continue
            self._waiting[want] = replace(each, left=each.left - 1, again_s=now.boot_s + APART_S)
            said.append(Send(trace.spelled(want).encode(), "server"))
        return said


@dataclass(frozen=True)
class Reply:
    """What the server does with a request: after `delay_s` it grants, fails, or says nothing.

    Times are seconds after the grant; `withdrawn_s` is when it takes it back without being asked.
    """

    delay_s: float = 0.5
    fails: bool = False
    lost: bool = False
    on_link: bool = False
    preferred_s: float = float("inf")
    valid_s: float = float("inf")
    withdrawn_s: float | None = None
    release_s: float | None = None


FIXED6: Want = (AddressType.FIXED, Family.IPV6)
SESSION6: Want = (AddressType.SESSION_LASTING, Family.IPV6)
SESSION4: Want = (AddressType.SESSION_LASTING, Family.IPV4)
