"""`sharing = "class"`: which classes have addresses of their own, and whether there is room."""

from pathlib import Path
from types import MappingProxyType

import pytest

from odm_agent.config.load import parse
from odm_agent.config.schema import Config
from odm_agent.core.errors import ConfigError
from odm_agent.core.lifetimes import Terms
from odm_agent.core.model import TypedPrefix
from odm_agent.sources.delegations import delegation_settings
from odm_agent.sources.static import typed_prefixes

_V6 = 'prefix = "2001:db8:1::/64"\nplacement = "delegated"'
_CLASSES = """
[classes.a]
allow = ["nonpersistent", "fixed"]
[classes.b]
allow = ["nonpersistent"]
[classes.b.lifetimes.nonpersistent]
preferred = "1h"
[classes.off]
allow = ["nonpersistent"]
mode = "off"
[classes.other]
allow = ["fixed"]
"""


def _config(prefix: str, classes: str = _CLASSES, kind: str = "nonpersistent") -> Config:
    head = f'[prefixes.p]\ntype = "{kind}"\ninterface = "eth0"\nsharing = "class"\n'
    return parse(f"{head}{prefix}\n{classes}", Path("f.toml"))


def _typed(config: Config) -> TypedPrefix:
    ids = {name: n for n, name in enumerate(["p", "p/a", "p/b", "p/other"], start=1)}
    class_ids = MappingProxyType({name: 40 + n for n, name in enumerate(config.classes)})
    [prefix] = typed_prefixes(config, ids.__getitem__, (), class_ids)
    return prefix


def test_each_class_that_may_use_the_type_has_a_seat() -> None:
    prefix = _typed(_config(_V6))
    assert prefix.by_class
    assert prefix.pool == 2
    assert [(e.class_name, e.class_id, e.number) for e in prefix.seats] == [
        ("a", 40, 2),
        ("b", 41, 3),
    ]
    assert not prefix.any_ip
    assert not prefix.one_lease


def test_the_lifetime_of_a_class_holds_for_its_own_address_alone() -> None:
    prefix = _typed(_config(_V6))
    assert prefix.terms.preferred_s is None
    assert prefix.terms_of("a") == prefix.terms == prefix.terms_of("")
    assert prefix.terms_of("b").preferred_s == 3600


def test_fixed_addresses_do_not_end() -> None:
    prefix = _typed(_config(_V6, kind="fixed"))
    assert [each.class_name for each in prefix.seats] == ["a", "other"]
    assert not any(each.terms.end for each in prefix.seats)


@pytest.mark.parametrize(
    ("prefix", "classes", "said"),
    [
        (_V6, _CLASSES, None),
        (f"{_V6}\npool = 2", _CLASSES, "prefixes.p.pool: each class has one address"),
        (
            'prefix = "192.0.2.0/30"\nplacement = "delegated"\nrotate = "never"',
            "\n".join(f'[classes.c{n}]\nallow = ["nonpersistent"]' for n in range(3)),
            "prefixes.p.sharing: 3 classes may use the type, and 192.0.2.0/30 has room for 2",
        ),
        (
            'prefix = "192.0.2.0/24"\nplacement = "on-link"\nrange = "192.0.2.8-192.0.2.9"\n'
            'rotate = "1h"',
            "\n".join(f'[classes.c{n}]\nallow = ["nonpersistent"]' for n in range(2)),
            "prefixes.p.rotate: no other address could take the place",
        ),
        (
            _V6,
            "\n".join(f'[classes.c{n}]\nallow = ["nonpersistent"]' for n in range(254)),
            None,
        ),
        (
            _V6,
            "\n".join(f'[classes.c{n}]\nallow = ["nonpersistent"]' for n in range(255)),
            "agent.mark_mask: 8 bits tell 255 prefixes apart, there are 256",
        ),
    ],
)
def test_what_is_said_of_it(prefix: str, classes: str, said: str | None) -> None:
    if said is None:
        _config(prefix, classes)
        return
    with pytest.raises(ConfigError) as caught:
        _config(prefix, classes)
    assert said in str(caught.value)


def test_delegations_have_seats_of_each_type() -> None:
    text = '[delegations.isp]\ninterface = "eth0"\nsharing = "class"\n' + _CLASSES
    config = parse(text, Path("f.toml"))
    settings = delegation_settings(config)["isp"]
    named = {type_.word: [e.class_name for e in of] for type_, of in settings.seats.items()}
    assert named["nonpersistent"] == ["a", "b"]
    assert named["fixed"] == ["a", "other"]
    assert named["session-lasting"] == []
    [b] = [e for of in settings.seats.values() for e in of if e.class_name == "b"]
    assert b.terms != Terms()
    assert b.terms.preferred_s == 3600
