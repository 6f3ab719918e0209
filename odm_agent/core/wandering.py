"""Prefixes that wander, through time: when another one of them is to stand first.

Time goes by in periods, counted from the boot on. Which period it is follows from the boot-time
clock alone, so an agent that starts anew needs to remember nothing. Who stands first in a period is
not decided here: that takes the secret (`prefixes.wandering`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from odm_agent.core.clock import NEVER
from odm_agent.core.jitter import jitter
from odm_agent.core.model import AddressType, Family, TypedPrefix


@dataclass(frozen=True, slots=True)
class Wanderers:
    """What all prefixes have in common that wander together."""

    type: AddressType
    family: Family
    preference: int
    every_s: int


#: Which period it is, for those that wander.
Periods = Mapping[Wanderers, int]


def wanderers_of(prefix: TypedPrefix) -> Wanderers | None:
    """With which others a prefix wanders; None: it does not."""
    if prefix.wander_s is None:
        return None
    return Wanderers(prefix.type, prefix.family, prefix.preference, prefix.wander_s)


def begins_s(wanderers: Wanderers, period: int) -> float:
    """When a period begins (boot-time seconds): up to a tenth early, as addresses rotate."""
    salt = (wanderers.type, wanderers.family, wanderers.preference, period)
    return wanderers.every_s * (period - jitter(*salt))


def period_at(wanderers: Wanderers, boot_s: float) -> int:
    """The period in which a moment lies."""
    period = int(boot_s // wanderers.every_s)
    return period + 1 if begins_s(wanderers, period + 1) <= boot_s else period


def groups(prefixes: Iterable[TypedPrefix]) -> dict[Wanderers, list[TypedPrefix]]:
    """Those among these prefixes that wander, by what they have in common."""
    found: dict[Wanderers, list[TypedPrefix]] = {}
    for prefix in prefixes:
        if (wanderers := wanderers_of(prefix)) is not None:
            found.setdefault(wanderers, []).append(prefix)
    return found


def periods_at(prefixes: Iterable[TypedPrefix], boot_s: float) -> Periods:
    """Which period it is for each of those among these prefixes that wander."""
    return {each: period_at(each, boot_s) for each in groups(prefixes)}


def next_s(periods: Periods) -> float:
    """When the first of these periods is over (boot-time seconds)."""
    return min((begins_s(each, period + 1) for each, period in periods.items()), default=NEVER)


def in_period(prefix: TypedPrefix, periods: Periods) -> TypedPrefix:
    """The prefix with the period that it is in."""
    wanderers = wanderers_of(prefix)
    period = 0 if wanderers is None else periods.get(wanderers, 0)
    return prefix if prefix.period == period else replace(prefix, period=period)
