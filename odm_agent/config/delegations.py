"""Delegations of a checked configuration as values, and each as the prefixes that it may bring."""

from typing import Final

from odm_agent.config.quantities import seconds
from odm_agent.config.schema import (
    Config,
    DelegationConfig,
    PrefixConfig,
    TermsConfig,
    UplinkConfig,
)

#: Words of `release` that are no duration.
NEVER: Final = "never"
UNUSED: Final = "unused"


def interfaces_of(section: DelegationConfig | UplinkConfig) -> tuple[str, ...]:
    """By which interfaces it may be attached, names or globs, the better ones first."""
    named = section.interface
    return (named,) if isinstance(named, str) else tuple(named)


def as_prefix(delegation: DelegationConfig, word: str, network: str | None = None) -> PrefixConfig:
    """The entry of a static prefix that would serve as one of the type that is delegated does.

    Without a `network` it is one of the length that is asked for. Of several interfaces it names
    the first.
    """
    terms = delegation.terms.get(word, TermsConfig())  # type: ignore[call-overload]
    return PrefixConfig(
        type=word,  # type: ignore[arg-type]
        prefix=network or f"::/{delegation.length}",
        interface=next(iter(interfaces_of(delegation)), ""),
        gateway=delegation.gateway,
        placement="delegated",
        pool=delegation.pool,
        preference=delegation.preference,
        linger=delegation.linger,
        sharing="host" if (word, delegation.sharing) == ("fixed", "socket") else delegation.sharing,
        forwarded=delegation.forwarded,
        **{key: getattr(terms, key) for key in TermsConfig.__struct_fields__},
    )


def all_as_prefixes(config: Config) -> dict[str, PrefixConfig]:
    """Of every delegation and type, under the names that people read of them."""
    return {
        f"{name}/{word}": as_prefix(each, word)
        for name, each in config.delegations.items()
        for word in each.types
    }


def release_after(delegation: DelegationConfig) -> float | None:
    """How long after its last socket a prefix is given back (seconds); None: never.

    ValueError says what is wrong with an entry that is not checked.
    """
    if delegation.release == NEVER:
        return None
    return 0.0 if delegation.release == UNUSED else float(seconds(delegation.release))
