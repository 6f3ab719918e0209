"""How long addresses serve, as a configuration says it; what makes no sense is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm_agent.config.load import parse
from odm_agent.config.terms import terms_of
from odm_agent.core.errors import ConfigError
from odm_agent.core.lifetimes import Terms
from odm_agent.sources.static import typed_prefixes

DAY_S = 86400
HEAD = """[prefixes.p]
type = "{type}"
prefix = "{prefix}"
interface = "eth0"
placement = "{placement}"
"""
#: The line on which the keys under test begin.
FIRST = 1 + HEAD.count("\n")
V6, V4 = "2001:db8:1::/64", "203.0.113.0/24"


def prefix(
    extra: str = "", kind: str = "session-lasting", network: str = V6, placement: str = "delegated"
) -> str:
    return HEAD.format(type=kind, prefix=network, placement=placement) + extra + "\n"


def terms(text: str) -> Terms:
    return terms_of(parse(text, Path("f.toml")).prefixes["p"])


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("f.toml"))
    return str(caught.value).splitlines()


def test_every_key_reaches_the_terms() -> None:
    keys = (
        'preferred = "1h30m"\nvalid = "2d"\nrotate = "15m"\nbudget = "10GB"\nwarn = "75%"\n'
        'hard = true\nlinger = 7\nreuse = "1d"'
    )
    assert terms(prefix(keys)) == Terms(
        preferred_s=5400,
        valid_s=2 * DAY_S,
        rotate_s=900,
        budget=10**10,
        warn=75 * 10**8,
        hard=True,
        linger=7,
        reuse_s=DAY_S,
    )


@pytest.mark.parametrize("kind", ["fixed", "session-lasting"])
def test_addresses_that_are_to_last_have_no_end_by_default(kind: str) -> None:
    assert not terms(prefix(kind=kind)).end


@pytest.mark.parametrize("kind", ["nonpersistent", "graceful-replacement"])
def test_the_other_types_are_renewed_once_a_day_without_being_asked(kind: str) -> None:
    assert terms(prefix(kind=kind)) == Terms(rotate_s=DAY_S)
    assert terms(prefix('rotate = "2h"', kind)) == Terms(rotate_s=7200)
    assert not terms(prefix('rotate = "never"', kind)).end
    assert terms(prefix('valid = "10h"', kind)) == Terms(valid_s=36_000, rotate_s=18_000)
    assert terms(prefix('valid = "7d"', kind)).rotate_s == DAY_S


@pytest.mark.parametrize(
    ("extra", "network", "placement"),
    [
        ("pool = 257", V6, "delegated"),
        ('sharing = "socket"', V6, "delegated"),
        ("", "203.0.113.4/32", "delegated"),
        ('pool = 2\nrange = "203.0.113.4-203.0.113.5"', V4, "delegated"),
        ('pool = 2\nrange = "203.0.113.4-203.0.113.5"', V4, "on-link"),
        ("", "2001:db8::1/128", "delegated"),
    ],
)
def test_a_prefix_without_another_address_is_not_renewed(
    extra: str, network: str, placement: str
) -> None:
    assert not terms(prefix(extra, "nonpersistent", network, placement)).end


@pytest.mark.parametrize(
    ("budget", "warn", "expected"),
    [
        ("100kB", None, 80_000),
        ("65575B", "1%", 655),
        ("99999B", "33%", 32_999),
        ("1000000TB", "99%", 99 * 10**16),
        ("100kB", "100%", 100_000),
    ],
)
def test_a_warning_is_an_exact_part_of_the_budget(
    budget: str, warn: str | None, expected: int
) -> None:
    line = f'\nwarn = "{warn}"' if warn else ""
    assert terms(prefix(f'budget = "{budget}"{line}')).warn == expected


def test_a_range_is_not_asked_for_more_lingering_addresses_than_it_has_room_for() -> None:
    ten = 'range = "203.0.113.10-203.0.113.19"\npool = 2\nrotate = "1h"'
    linger = terms(prefix(ten, network=V4)).linger
    assert linger == 10 - 2 - 1, "the pool and a spare have their own"
    assert terms(prefix(f"{ten}\nlinger = 3", network=V4)).linger == 3


def test_as_many_may_linger_as_may_end_at_once() -> None:
    assert terms(prefix('rotate = "1h"\npool = 200')).linger == 200
    assert terms(prefix('rotate = "1h"\npool = 20\nlinger = 5')).linger == 20


@pytest.mark.parametrize(
    ("extra", "key", "words"),
    [
        ('preferred = "90"', "preferred", "has no unit"),
        ('valid = "soon"', "valid", "is no duration"),
        ('rotate = "0s"', "rotate", "is out of range"),
        ('rotate = "-1h"', "rotate", "is no duration"),
        ('reuse = "36501d"', "reuse", "is out of range"),
        ('rotate = "4s"', "rotate", "shorter than it takes to make another address"),
        ('preferred = "4s"', "preferred", "shorter than it takes to make another address"),
        ('valid = "1h"\npreferred = "61m"', "valid", "shorter than preferred"),
        ('valid = "1h"\nrotate = "61m"', "valid", "shorter than rotate"),
        ('budget = "0MB"', "budget", "is out of range"),
        ('budget = "10"', "budget", "has no unit"),
        ('budget = "65574B"', "budget", "one packet may be as large as 65575 bytes"),
        ('warn = "0%"\nbudget = "1GB"', "warn", "is no part of a whole"),
        ('warn = "101%"\nbudget = "1GB"', "warn", "is no part of a whole"),
        ("hard = true", "hard", "there is no budget"),
        ('warn = "50%"', "warn", "there is no budget"),
        ('valid = "4s"', "valid", "shorter than it takes to make another address"),
        ("linger = 0", "linger", "out of range; use 1 to 1024"),
        ("linger = 1025", "linger", "out of range; use 1 to 1024"),
        ('rotate = "1h"\npool = 257', "rotate", "don't rotate"),
        ('rotate = "1h"\nsharing = "socket"', "rotate", "don't rotate"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line_and_what_to_do(
    extra: str, key: str, words: str
) -> None:
    (message,) = refused(prefix(extra))
    line = FIRST + [each.split(" ")[0] for each in extra.splitlines()].index(key)
    assert message.startswith(f"f.toml:{line}: prefixes.p.{key}: ")
    assert words in message
    assert "; " in message, "it says what to do"


@pytest.mark.parametrize("extra", ["rotate = 90", "budget = 5", "preferred = 1.5", 'hard = "yes"'])
def test_a_value_of_another_kind_is_refused_by_its_line(extra: str) -> None:
    (message,) = refused(prefix(extra))
    assert message.startswith(f"f.toml:{FIRST}: prefixes.p.{extra.split(' ')[0]}: ")


@pytest.mark.parametrize(
    "extra", ['preferred = "1h"', 'valid = "1h"', 'rotate = "1h"', 'budget = "1GB"']
)
def test_a_fixed_address_is_for_ever(extra: str) -> None:
    (message,) = refused(prefix(extra, "fixed"))
    assert message.startswith(f"f.toml:{FIRST}: prefixes.p.{extra.split(' ')[0]}: ")
    assert "is for ever (RFC 8653, section 3.2)" in message


TEN = 'range = "203.0.113.10-203.0.113.19"'


@pytest.mark.parametrize(
    ("extra", "kind", "needed"),
    [
        ('rotate = "1h"\nreuse = "9h"', "session-lasting", None),
        ('rotate = "1h"\nreuse = "9h1s"', "session-lasting", 11),
        ('rotate = "1h"\nreuse = "4h"\npool = 2', "session-lasting", None),
        ('rotate = "1h"\nreuse = "5h"\npool = 2', "session-lasting", 12),
        ('preferred = "10m"\nrotate = "1h"\nreuse = "9h"', "session-lasting", 55),
        ('reuse = "9d"', "nonpersistent", None),
        ('reuse = "10d"', "nonpersistent", 11),
        ('reuse = "10d"\nrotate = "never"', "nonpersistent", None),
        ('reuse = "100d"\nbudget = "1GB"', "session-lasting", None),
    ],
)
def test_a_range_must_have_others_while_an_address_rests(
    extra: str, kind: str, needed: int | None
) -> None:
    text = prefix(f"{extra}\n{TEN}", kind, V4)
    if needed is None:
        terms(text)
        return
    (message,) = refused(text)
    assert f"takes {needed} addresses, 203.0.113.10-203.0.113.19 has room for 10; use" in message
    assert ".reuse: " in message
    terms(prefix(extra, kind))  # IPv6 has always others


def test_never_says_nothing_of_an_end() -> None:
    for text in (prefix('rotate = "never"', "fixed"), prefix('rotate = "never"\npool = 1000')):
        assert not terms(text).end


@pytest.mark.parametrize(
    ("network", "placement", "range_"),
    [
        (V4, "on-link", "203.0.113.4-203.0.113.5"),
        (V4, "delegated", "203.0.113.4-203.0.113.5"),
        ("203.0.113.4/31", "delegated", None),
        ("2001:db8::/127", "delegated", None),
    ],
)
def test_an_end_that_leaves_no_address_is_refused(
    network: str, placement: str, range_: str | None
) -> None:
    extra = "pool = 2" + (f'\nrange = "{range_}"' if range_ else "")
    for key in ("preferred", "valid", "rotate"):
        (message,) = refused(prefix(f'{key} = "1h"\n{extra}', network=network, placement=placement))
        assert message.startswith(f"f.toml:{FIRST}: prefixes.p.{key}: no other address could take")


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = refused(prefix('preferred = "1"\nvalid = "x"\nlinger = 0\nwarn = "0%"\nbudget = "5"'))
    assert [each.split(": ")[1].rpartition(".")[2] for each in found] == [
        *("preferred", "valid", "linger", "warn", "budget")
    ]


VALUES = ["", "0s", "4s", "5s", "1h", "36500d", "99999999d", "never", "1", "-1s", "x"]
SIZES = ["", "1B", "65575B", "1GB", "0B", "1000000TB", "5", "99999999999TB"]


@given(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["fixed", "session-lasting", "nonpersistent"]),
            "prefix": st.sampled_from([V6, V4, "2001:db8::1/128", "203.0.113.4/31", "nonsense"]),
            "placement": st.sampled_from(["delegated", "on-link"]),
        },
        optional={
            "range": st.sampled_from(["203.0.113.4-203.0.113.9", "203.0.113.4", "9-1"]),
            "pool": st.sampled_from([1, 2, 16, 17, 0, 99999]),
            **{k: st.sampled_from(VALUES) for k in ("preferred", "valid", "rotate", "reuse")},
            "budget": st.sampled_from(SIZES),
            "warn": st.sampled_from(["1%", "100%", "0%", "101%", "x"]),
            "hard": st.booleans(),
            "linger": st.sampled_from([1, 32, 1024, 0, 1025, 10**20]),
            "sharing": st.sampled_from(["host", "socket"]),
        },
    )
)
def test_every_entry_is_refused_with_words_or_has_terms_that_hold(keys: dict[str, object]) -> None:
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool | int) else f'{value!r}'}"
        for key, value in keys.items()
    ]
    text = "\n".join(["[prefixes.p]", 'interface = "eth0"', *lines])
    try:
        found = terms(text)
    except ConfigError as error:
        assert all(line.startswith("f.toml:") for line in str(error).splitlines())
        return
    assert found.valid_s is None or found.valid_s >= max(
        found.preferred_s or 0, 0 if keys.get("rotate") is None else found.rotate_s or 0
    )
    assert 1 <= found.linger <= 1024
    assert found.budget is None or 1 <= (found.warn or 0) <= found.budget
    assert not (found.end and keys["type"] == "fixed")


# --- classes -------------------------------------------------------------------------------------

CLASS = """[classes.c]
allow = ["fixed", "session-lasting", "nonpersistent"]
[classes.c.lifetimes.{kind}]
"""


def limited(extra: str, ends: str, kind: str = "session-lasting") -> Terms:
    """The terms of a prefix that a class with such a lifetime shares."""
    text = prefix(extra, kind) + CLASS.format(kind=kind) + ends
    (typed,) = typed_prefixes(parse(text, Path("f.toml")), lambda _: 1)
    return typed.terms


def test_an_address_that_classes_share_lives_as_long_as_the_shortest_of_their_lifetimes() -> None:
    both = 'preferred = "1h"\nbudget = "1GB"'
    assert limited("", both) == Terms(preferred_s=3600, budget=10**9, warn=8 * 10**8)
    longer = 'preferred = "2h"\nbudget = "5GB"\nwarn = "50%"\nhard = true'
    assert limited(longer, both) == Terms(preferred_s=3600, budget=10**9, warn=5 * 10**8, hard=True)
    shorter = 'preferred = "30m"\nbudget = "5MB"'
    assert limited(shorter, both) == Terms(preferred_s=1800, budget=5 * 10**6, warn=4 * 10**6)
    assert limited('valid = "10m"', both).preferred_s == 600
    assert limited("", both, "nonpersistent").rotate_s == DAY_S


def test_the_lifetime_of_a_class_that_is_off_is_none() -> None:
    text = prefix() + CLASS.format(kind="session-lasting").replace(
        "[classes.c]", '[classes.c]\nmode = "off"'
    )
    (typed,) = typed_prefixes(parse(text + 'preferred = "1h"', Path("f.toml")), lambda _: 1)
    assert not typed.terms.end


def test_sockets_with_addresses_of_their_own_end_the_prefix_for_nobody() -> None:
    assert not limited('sharing = "socket"', 'preferred = "1h"').end


@pytest.mark.parametrize(
    ("extra", "kind", "ends", "at", "words"),
    [
        ("", "fixed", 'preferred = "1h"', "", "a fixed address is for ever"),
        ("", "graceful-replacement", 'preferred = "1h"', "", "is not allowed to the class"),
        ("", "session-lasting", "", "", "nothing ends by this"),
        ("", "session-lasting", 'preferred = "1"', "preferred", "has no unit"),
        ("", "session-lasting", 'preferred = "4s"', "preferred", "shorter than it takes"),
        ("", "session-lasting", 'budget = "0B"', "budget", "out of range"),
        ("", "session-lasting", 'budget = "1000B"', "budget", "one packet may be as large"),
        ("pool = 300", "session-lasting", 'preferred = "1h"', "", "no other address of prefix p"),
    ],
)
def test_a_lifetime_that_cannot_be_is_refused_with_its_line_and_what_to_do(
    extra: str, kind: str, ends: str, at: str, words: str
) -> None:
    head = prefix(extra)
    (message,) = refused(head + CLASS.format(kind=kind) + ends)
    line = head.count("\n") + 3 + bool(at)
    place = f"classes.c.lifetimes.{kind}" + (f".{at}" if at else "")
    assert message.startswith(f"f.toml:{line}: {place}: ")
    assert words in message
    assert "; " in message, "it says what to do"
