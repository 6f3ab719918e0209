"""In which order prefixes that wander serve: another one first in each period.

The order of a period is a function of the secret, the boot and the number of the period, so that it
is the same after a crash, another one after a boot, and known to nobody who has not the secret. It
is one of all prefixes that wander together, whether or not they are usable now: so the loss of one
that does not stand first moves nothing, and the others move up where the first is lost.
"""

import hashlib
from collections.abc import Callable, Collection
from typing import Final

from odm_agent.core.wandering import Wanderers

#: Who stands first depends on who did before, but on no period before its block's: else all since
#: the boot would have to be gone through. What is picked last in a block differs from what the next
#: one begins with, so it can be guessed a little better than the others: blocks are not too small.
_BLOCK: Final = 16


def wander_key(secret: bytes, boot: str) -> bytes:
    """The key that orders are made with during a boot."""
    return hashlib.blake2b(
        boot.encode(), key=secret[:64], digest_size=32, person=b"wander"
    ).digest()


def order(members: Collection[int], wanderers: Wanderers, period: int, key: bytes) -> list[int]:
    """The ids of prefixes that wander together, as they serve in a period.

    The first is never the one of the period before, which is the last to move up in its place.
    """

    def draw(of: int) -> dict[int, bytes]:
        return {each: _number(each, wanderers, of, key) for each in members}

    first, before, drawn = _first(draw, period), _first(draw, period - 1), draw(period)
    return sorted(members, key=lambda each: (each != first, each == before, drawn[each]))


def _first(draw: Callable[[int], dict[int, bytes]], period: int) -> int:
    """Which one stands first; `draw` draws a number for each, and the lowest wins."""
    drawn = draw(0)
    if len(drawn) <= 2:  # there is no choice: they take turns
        return sorted(drawn, key=drawn.__getitem__)[period % len(drawn)]
    begins = period - period % _BLOCK
    first = _lowest(draw(begins))
    for each in range(begins + 1, period + 1):
        barred = {first}
        if (each + 1) % _BLOCK == 0:
            barred.add(_lowest(draw(each + 1)))
        first = _lowest({id_: number for id_, number in draw(each).items() if id_ not in barred})
    return first


def _lowest(drawn: dict[int, bytes]) -> int:
    return min(drawn, key=drawn.__getitem__)


def _number(prefix_id: int, wanderers: Wanderers, period: int, key: bytes) -> bytes:
    of = (wanderers.type, wanderers.family, wanderers.preference, period, prefix_id)
    text = " ".join(map(str, map(int, of)))
    return hashlib.blake2b(text.encode(), key=key, digest_size=16).digest()
