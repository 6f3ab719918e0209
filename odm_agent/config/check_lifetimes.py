"""Whether addresses can live for a class as its entry in the configuration says."""

from collections.abc import Iterator

from odm_agent.config.check_terms import SHORTEST_S, SMALLEST_BUDGET
from odm_agent.config.problems import Problem
from odm_agent.config.quantities import number_of_bytes, seconds
from odm_agent.config.schema import ClassConfig, LifetimeConfig, PrefixConfig
from odm_agent.config.terms import has_successor, is_per_socket


def check_lifetimes(
    at: tuple[str, ...], section: ClassConfig, prefixes: dict[str, PrefixConfig]
) -> Iterator[Problem]:
    """All problems of a class's lifetimes."""
    for word, each in section.lifetimes.items():
        where = (*at, "lifetimes", word)
        if word not in section.allow:
            yield Problem(
                where,
                f"{word} is not allowed to the class; add it to allow, or leave the lifetime out",
            )
        if word == "fixed":
            yield Problem(
                where, "a fixed address is for ever (RFC 8653, section 3.2); leave this out"
            )
            continue
        if each.preferred is None and each.budget is None:
            yield Problem(where, "nothing ends by this; say preferred, budget or both")
        yield from _lengths(where, each)
        for name, prefix in prefixes.items():
            if prefix.type == word and not _can_end(prefix):
                yield Problem(
                    where,
                    f"no other address of prefix {name} could take the place of one that ends; give"
                    " that a smaller pool, or a larger range",
                )


def _can_end(prefix: PrefixConfig) -> bool:
    """A prefix that is no prefix is said to be none elsewhere."""
    try:
        return is_per_socket(prefix) or has_successor(prefix)
    except ValueError:
        return True


def _lengths(where: tuple[str, ...], each: LifetimeConfig) -> Iterator[Problem]:
    if each.preferred is not None:
        try:
            longest_s = seconds(each.preferred)
        except ValueError as error:
            yield Problem((*where, "preferred"), str(error))
        else:
            if longest_s < SHORTEST_S:
                yield Problem(
                    (*where, "preferred"),
                    f"{longest_s} s is shorter than it takes to make another address; use at least"
                    f" {SHORTEST_S}s",
                )
    if each.budget is not None:
        try:
            budget = number_of_bytes(each.budget)
        except ValueError as error:
            yield Problem((*where, "budget"), str(error))
        else:
            if budget < SMALLEST_BUDGET:
                yield Problem(
                    (*where, "budget"),
                    f"one packet may be as large as {SMALLEST_BUDGET} bytes; use at least"
                    f' "{SMALLEST_BUDGET}B"',
                )
