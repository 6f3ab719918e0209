"""Whether a prefix's addresses can end as its entry in the configuration says."""

from collections.abc import Iterator
from typing import Final

from odm_agent.config.problems import Problem
from odm_agent.config.quantities import number_of_bytes, percent, seconds
from odm_agent.config.schema import PrefixConfig
from odm_agent.config.terms import (
    NEVER,
    RENEWED,
    RENEWED_S,
    WARNED,
    ends_as_one,
    has_successor,
    is_per_socket,
)
from odm_agent.config.values import room
from odm_agent.core.model import LEASED_AT_MOST, IPNetwork

#: A successor is configured, and checked for conflicts, before it serves.
SHORTEST_S: Final = 5
#: The largest packet that may reach a budget: a budget below that is over at once.
SMALLEST_BUDGET: Final = 65_575
MOST_LINGERING: Final = 1024
#: The keys by which an address ends.
_ENDS: Final = ("preferred", "valid", "rotate", "budget")


def check_terms(at: tuple[str, ...], prefix: PrefixConfig, network: IPNetwork) -> Iterator[Problem]:
    """All problems of one entry's terms; `network` is its prefix."""
    lengths: dict[str, int] = {}
    for key in ("preferred", "valid", "rotate", "reuse"):
        text = getattr(prefix, key)
        if text is None or (key == "rotate" and text == NEVER):
            continue
        try:
            lengths[key] = seconds(text)
        except ValueError as error:
            yield Problem((*at, key), str(error))
    yield from _lengths(at, lengths)
    yield from _reuse(at, prefix, network, lengths)
    yield from _budget(at, prefix)
    yield from _sharing(at, prefix, network)
    if not 1 <= prefix.linger <= MOST_LINGERING:
        yield Problem(
            (*at, "linger"), f"{prefix.linger} is out of range; use 1 to {MOST_LINGERING}"
        )
    ends = [key for key in _ENDS if getattr(prefix, key) not in (None, NEVER)]
    if ends and prefix.type == "fixed":
        yield Problem(
            (*at, ends[0]),
            "a fixed address is for ever (RFC 8653, section 3.2); leave this out, or use another"
            " type",
        )
    elif lengths.get("rotate") and ends_as_one(prefix):
        yield Problem(
            (*at, "rotate"),
            f"so many addresses end together and don't rotate; use a pool of at most"
            f" {LEASED_AT_MOST}, or leave rotate out where each socket has an address of its own",
        )
    elif ends and not ends_as_one(prefix) and not has_successor(prefix):
        yield Problem(
            (*at, ends[0]),
            f"no other address could take the place of one that ends: {prefix.range or network} has"
            f" only the {prefix.pool} of the pool; use a smaller pool or a larger range",
        )


def too_short(length_s: int) -> str | None:
    """Why an address can't serve for so few seconds, and what to do; None: it can."""
    if length_s >= SHORTEST_S:
        return None
    return (
        f"{length_s} s is shorter than it takes to make another address; use at least {SHORTEST_S}s"
    )


def too_small(budget: int) -> str | None:
    """Why an address can't serve for so few bytes, and what to do; None: it can."""
    if budget >= SMALLEST_BUDGET:
        return None
    return (
        f'one packet may be as large as {SMALLEST_BUDGET} bytes; use at least "{SMALLEST_BUDGET}B"'
    )


def _lengths(at: tuple[str, ...], lengths: dict[str, int]) -> Iterator[Problem]:
    for key in ("preferred", "valid", "rotate"):
        if key in lengths and (fault := too_short(lengths[key])):
            yield Problem((*at, key), fault)
    for key in ("preferred", "rotate"):
        if key in lengths and lengths.get("valid", lengths[key]) < lengths[key]:
            yield Problem(
                (*at, "valid"),
                f"it is shorter than {key}: an address would be given that may not be sent from;"
                f" use at least {lengths[key]}s",
            )


def _reuse(
    at: tuple[str, ...], prefix: PrefixConfig, network: IPNetwork, lengths: dict[str, int]
) -> Iterator[Problem]:
    """Whether an IPv4 range has addresses enough to serve while the former ones rest."""
    if network.version == 6 or "reuse" not in lengths or ends_as_one(prefix):
        return
    ends = [lengths[key] for key in ("preferred", "rotate") if key in lengths]
    if prefix.type in RENEWED and prefix.rotate is None:
        ends.append(RENEWED_S)
    if not ends:
        return
    turns = -(-lengths["reuse"] // max(1, min(ends)))
    needed = prefix.pool * (1 + turns)
    if room(prefix, network) < needed:
        yield Problem(
            (*at, "reuse"),
            f"{turns} others serve in turn while an address rests: that takes {needed} addresses,"
            f" {prefix.range or network} has room for {room(prefix, network)}; use a shorter reuse,"
            " or a larger range",
        )


def _budget(at: tuple[str, ...], prefix: PrefixConfig) -> Iterator[Problem]:
    if prefix.budget is None:
        for key in ("warn", "hard"):
            if getattr(prefix, key):
                yield Problem(
                    (*at, key), "there is no budget that it is about; add budget, or leave it out"
                )
        return
    try:
        percent(prefix.warn or WARNED)
    except ValueError as error:
        yield Problem((*at, "warn"), str(error))
    try:
        budget = number_of_bytes(prefix.budget)
    except ValueError as error:
        yield Problem((*at, "budget"), str(error))
        return
    if fault := too_small(budget):
        yield Problem((*at, "budget"), fault)


def _sharing(at: tuple[str, ...], prefix: PrefixConfig, network: IPNetwork) -> Iterator[Problem]:
    if not is_per_socket(prefix):
        return
    where = (*at, "sharing")
    if prefix.type == "fixed":
        yield Problem(
            where, 'sockets with addresses of their own have no fixed one; use sharing = "host"'
        )
    if prefix.placement != "delegated":
        yield Problem(
            where,
            "on a link every address is announced; addresses for each socket need a delegated"
            " prefix",
        )
    if network.version == 6 and network.prefixlen > 64:
        yield Problem(
            where, f"{network} has too few addresses to give each socket its own; use a /64"
        )
