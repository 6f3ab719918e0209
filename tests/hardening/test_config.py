"""Whatever stands in a configuration file, it is a configuration or a ConfigError."""

from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from odm_agent.config import load
from odm_agent.config.classes import class_policies
from odm_agent.config.schema import AgentConfig, ClassConfig, PrefixConfig
from odm_agent.core.errors import ConfigError
from odm_agent.core.host import HostState, Link, LocalAddress
from odm_agent.sources.static import typed_prefixes

_BOUNDED: Final = settings(
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_PATH: Final = Path("/etc/odm-agent/odm-agent.toml")
_HOST: Final = HostState(
    links={"eth0": Link("eth0", 2, True)},
    addresses=(
        LocalAddress(ip_address("192.0.2.10"), 24, "eth0", False),
        LocalAddress(ip_address("2001:db8::10"), 64, "eth0", False),
    ),
)

_LONG: Final = "9" * 5000
_VALUES: Final = st.sampled_from(
    [
        *(
            "",
            "/",
            "\0",
            "fixed",
            "allow",
            "refuse",
            "delegated",
            "on-link",
            "eth0",
            "lo",
            "a" * 300,
        ),
        *("2001:db8:1::/64", "192.0.2.0/24", "0.0.0.0/0", "::/0", "192.0.2.1/24", "::ffff:0:0/96"),
        *("fe80::1", "fe80::1%eth0", "2001:db8::%eth0/64", "192.0.2.1", "192.0.2.1-192.0.2.9", "-"),
        *("127.0.0.1:9653", "[::1]:9653", "[::1%lo]:9653", f"127.0.0.1:{_LONG}", "²", "é" * 60),
        *(0, -1, 1, 8653, 2**32, 2**63, 2**64, 10**30, 1.5, float("inf"), float("nan"), True),
        *([], {}, ["fixed"], ["/"], ["a*/b?"], ["[!"], ["[" * 300], [[]], {"a": 1}),
    ]
)
_SECTIONS: Final = {
    "agent": AgentConfig,
    "classes.a": ClassConfig,
    "prefixes.p": PrefixConfig,
    "prefixes.q": PrefixConfig,
}
_SENSIBLE: Final[dict[str, Any]] = {
    "type": "fixed",
    "prefix": "2001:db8:1::/64",
    "interface": "eth0",
    "placement": "delegated",
}


def _use(text: str) -> None:
    """All that a configuration goes through before anything is done with it."""
    with suppress(ConfigError):
        config = load.parse(text, _PATH)
        load.review(config, _HOST, text)
        ids = iter(range(1, 1000))
        typed_prefixes(config, lambda _: next(ids))
        class_policies(config, lambda _: next(ids))


@_BOUNDED
@given(st.text(max_size=200))
@example("a = " + "[" * 5000)
@example("a = " + "{a=" * 3000)
@example("a." * 5000 + "a = 1")
@example("[" + "a." * 3000 + "a]")
@example(f"a = {_LONG}")
@example(f"a = 1e{_LONG}")
@example("a = 2026-02-30")
@example("a = 0000-00-00T99:99:99Z")
@example("classes = 1\nprefixes = [1]\nagent = []")
@example("[[classes]]\n[[prefixes.p]]\n[[agent]]")
def test_arbitrary_text(text: str) -> None:
    _use(text)


@_BOUNDED
@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"\0")
@example(b"\xef\xbb\xbf[agent]")
def test_arbitrary_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "odm-agent.toml"
    path.write_bytes(data)
    with suppress(ConfigError):
        load.load(path)


@_BOUNDED
@given(st.lists(st.sampled_from(list("[]{}=.,#\"'\n\\ ab10-:T_")), max_size=60).map("".join))
def test_text_that_looks_like_toml(text: str) -> None:
    _use(text)


@_BOUNDED
@given(st.data())
def test_values_of_every_kind_in_every_key(data: st.DataObject) -> None:
    """Mostly sensible sections, with keys that have all sorts of values."""
    lines = []
    for section, kind in _SECTIONS.items():
        keys = dict(_SENSIBLE) if kind is PrefixConfig else {}
        names = st.sampled_from(kind.__struct_fields__)
        keys |= data.draw(st.dictionaries(names, _VALUES, max_size=2))
        lines += [f"[{section}]", *(f"{key} = {_spelled(value)}" for key, value in keys.items())]
    _use("\n".join(lines))


def _spelled(value: Any) -> str:
    if isinstance(value, float):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_spelled(each)}" for key, each in value.items()) + "}"
    return msgspec.json.encode(value).decode() if not isinstance(value, int) else _number(value)


def _number(value: int) -> str:
    return str(value).lower()
