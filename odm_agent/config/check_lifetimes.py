"""Whether addresses can live for a class as its entry in the configuration says."""

from collections.abc import Callable, Iterator, Mapping

from odm_agent.config.check_terms import too_short, too_small
from odm_agent.config.problems import Problem
from odm_agent.config.quantities import number_of_bytes, seconds
from odm_agent.config.schema import ClassConfig, LifetimeConfig, PrefixConfig, UplinkConfig
from odm_agent.config.terms import has_successor, is_per_socket


def check_lifetimes(
    at: tuple[str, ...],
    section: ClassConfig,
    prefixes: Mapping[str, PrefixConfig],
    uplinks: Mapping[str, UplinkConfig],
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
        for name, uplink in uplinks.items():
            if uplink.type == word:
                yield Problem(
                    where,
                    f"addresses of uplink {name} live as long as whoever manages them says; leave"
                    " the lifetime out, or serve the type by prefixes alone",
                )
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
    fault_in: dict[str, Callable[[str], str | None]] = {
        "preferred": lambda text: too_short(seconds(text)),
        "budget": lambda text: too_small(number_of_bytes(text)),
    }
    for key, look in fault_in.items():
        if (text := getattr(each, key)) is None:
            continue
        try:
            fault = look(text)
        except ValueError as error:
            fault = str(error)
        if fault is not None:
            yield Problem((*where, key), fault)
