"""What the configuration says of delegations, as their sources are told it."""

from ipaddress import IPv6Address
from zlib import crc32

from odm_agent.config.classes import limits_of
from odm_agent.config.delegations import as_prefix, interfaces_of, release_after
from odm_agent.config.schema import Config, DelegationConfig
from odm_agent.config.terms import (
    is_by_class,
    is_per_socket,
    seats_of,
    terms_of,
    with_room_for_classes,
)
from odm_agent.core.model import AddressType, Limit
from odm_agent.sources.dhcpv6.bindings import MOST_BINDINGS
from odm_agent.sources.dhcpv6.settings import Settings

#: How many bits of an IAID tell delegations apart, above those that tell prefixes of one apart.
_NAME_BITS = 20


def delegation_settings(config: Config) -> dict[str, Settings]:
    """Of each delegation of a checked configuration, by name."""
    limits = [
        limit
        for section in config.classes.values()
        if section.mode != "off"
        for limit in limits_of(section)
    ]
    return {
        name: _settings(name, each, config, limits) for name, each in config.delegations.items()
    }


def _settings(name: str, each: DelegationConfig, config: Config, limits: list[Limit]) -> Settings:
    types = {word: AddressType.from_word(word) for word in each.types}
    prefixes = {
        type_: with_room_for_classes(config, as_prefix(each, word)) for word, type_ in types.items()
    }
    return Settings(
        name=name,
        interfaces=interfaces_of(each),
        types=frozenset(types.values()),
        at_start=frozenset(types[word] for word in each.at_start),
        option_code=each.option,
        enterprise=each.enterprise,
        length=each.length,
        preference=each.preference,
        pool=each.pool,
        untyped_as=types[each.untyped] if each.untyped else None,
        first_instance=first_instance(name),
        release_s=release_after(each),
        terms={
            type_: terms_of(
                prefix, (e for e in limits if e.type is type_ and not is_by_class(prefix))
            )
            for type_, prefix in prefixes.items()
        },
        per_socket=frozenset(type_ for type_, prefix in prefixes.items() if is_per_socket(prefix)),
        seats={
            type_: seats_of(config, prefix)
            for type_, prefix in prefixes.items()
            if is_by_class(prefix)
        },
        forwarded=each.forwarded == "allow",
        gateway=None if each.gateway is None else IPv6Address(each.gateway),
    )


def first_instance(name: str) -> int:
    """Where the IAIDs of a delegation begin, within those of a type.

    It follows from the name, since it must be the same after a restart, whatever else is configured
    by then (RFC 8415, section 12); a server knows the host by one identifier on all its links.
    """
    return crc32(name.encode()) % (1 << _NAME_BITS) * (1 << MOST_BINDINGS.bit_length())
