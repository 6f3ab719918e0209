import os
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from odm_agent.cli.where import agent_settings
from odm_agent.config.lines import line_of, lines_of
from odm_agent.config.load import Finding, load, parse, review
from odm_agent.config.schema import AgentConfig, Config
from odm_agent.core.errors import ConfigError
from odm_agent.core.host import HostState, Link, LocalAddress, Route
from odm_agent.core.model import Family

PREFIX = """
[prefixes.{name}]
type = "fixed"
prefix = "{prefix}"
interface = "eth0"
placement = "{placement}"
"""


def capped(keys: str) -> str:
    """A class with a cap on a type that it may use."""
    return f'[classes.a]\nallow = ["fixed"]\n[classes.a.caps.fixed]\n{keys}'


def prefix(
    network: str = "2001:db8:1::/64", extra: str = "", name: str = "p", placement: str = "delegated"
) -> str:
    return PREFIX.format(name=name, prefix=network, placement=placement) + extra + "\n"


def on_link(extra: str = "") -> str:
    """An on-link IPv4 prefix of two addresses."""
    return prefix("192.0.2.0/24", f'range = "192.0.2.9-192.0.2.10"\n{extra}', placement="on-link")


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("f.toml"))
    return str(caught.value)


def test_an_empty_file_is_the_default_configuration() -> None:
    assert parse("", Path("f.toml")) == Config()


def test_a_whole_configuration_is_read() -> None:
    config = parse(
        prefix(extra='gateway = "fe80::1"\npool = 3')
        + '[classes.ssh]\ncgroups = ["system.slice/ssh.service"]\nallow = ["fixed"]\n'
        'default = "fixed"\n[unclassified]\nmode = "audit"\n',
        Path("f.toml"),
    )
    assert config.prefixes["p"].pool == 3
    assert config.classes["ssh"].default == "fixed"
    assert config.unclassified.mode == "audit"


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration.*--config"):
        load(tmp_path / "none.toml")


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "f.toml")


def test_broken_toml_names_its_line() -> None:
    assert refused("[agent]\nmetrics = \n").startswith("f.toml:2: this is not TOML: ")


def test_all_problems_are_named_with_their_lines() -> None:
    message = refused(
        '[agent]\nmetrics = "no"\nlog_lvel = "info"\n\n'
        '[classes.a]\nallow = [\n  "fixed",\n]\ndefault = "nonpersistent"\n'
        '[classes.b]\nmode = "maybe"\n[clases.c]\n' + prefix("2001:db8::1/64")
    )
    assert [line.split(": ")[0] for line in message.splitlines()] == [
        "f.toml:3",  # a section that cannot be read is not checked further
        "f.toml:9",
        "f.toml:11",
        "f.toml:12",
        "f.toml:16",
    ]
    assert "did you mean log_level?" in message
    assert "did you mean classes?" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("agent = 3", "f.toml:1: agent: this must be a table; write [agent]"),
        ("prefixes = 3", "prefixes: this must be tables; write [prefixes.NAME]"),
        ("[prefixes.p]\n", "f.toml:1: prefixes.p: the key type is missing; add it"),
        ("[agent]\nmetrics = 3", "f.toml:2: agent.metrics: expected `str`, got `int`"),
        ('[agent]\nmetrics = "[::1]"', "not ADDRESS:PORT"),
        ('[agent]\nmetrics = "localhost:1"', "not ADDRESS:PORT"),
        ('[agent]\nmetrics = "::1:9653"', "not ADDRESS:PORT"),
        ('[agent]\nstate_dir = "var"', "'var' is not an absolute path"),
        (f'[agent]\nsocket = "/{"x" * 107}"', "too long for a unix socket"),
        ("[agent]\nmark_mask = 0xF0F0", "not one run of 4 to 16 bits"),
        ("[agent]\nmark_mask = 0x7", "not one run of 4 to 16 bits"),
        ("[agent]\nmark_mask = 0x1FFFF", "not one run of 4 to 16 bits"),
        ("[agent]\nmark_mask = 0x1F00000000", "not one run of 4 to 16 bits"),
        ("[agent]\nmark_mask = -16", "not one run of 4 to 16 bits"),
        ("[agent]\nmark_mask = 0", "not one run of 4 to 16 bits"),
        ("[agent]\ntable_base = 253", "use 256 to"),
        ("[agent]\nrule_priority = 32001", "use 1 to 32000"),
        ("[agent]\nprotocol = 4", "use 5 to 255"),
        ("[classes.Big]", "the name 'Big' cannot be used"),
        ("[classes.unclassified]", "use [unclassified]"),
        ("[classes.a]\nstrict = true", "could use no address at all"),
        ("[classes.a.caps.fixed]\nsockets = 3", "fixed is not allowed to the class"),
        (capped(""), "f.toml:3: classes.a.caps.fixed: this caps nothing"),
        (capped("sockets = 0"), "f.toml:4: classes.a.caps.fixed.sockets: 0 is out of range"),
        (capped("requests_per_minute = 100001"), "use 1 to 100000"),
        (capped("socket = 3"), "unknown field `socket`"),
        ('[classes.a]\nrefuse = ["rawe"]', "classes.a.refuse: invalid enum value 'rawe'"),
        ('[unclassified]\nrefuse = "raw"', "unclassified.refuse: expected `array`"),
        ('[classes.a]\ncgroups = ["a//b"]', "is not a path"),
        ('[classes.a]\ncgroups = ["a/../b"]', "is not a path"),
        ('[classes.a]\ncgroups = [""]', "is not a path"),
        ('[classes.a]\ncgroups = ["a/**"]', "one * for each level"),
        ('[classes.a]\ncgroups = ["x", "/x/"]', "stands twice in this class"),
        (
            '[classes.a]\ncgroups = ["x"]\n[classes.b]\ncgroups = ["x"]',
            "f.toml:4: classes.b.cgroups: the cgroup 'x' stands also in 'a'",
        ),
        (prefix("nonsense"), "f.toml:4: prefixes.p.prefix: no prefix"),
        (prefix("2001:db8::1/64"), "has host bits set"),
        (prefix("fe80::/64"), "holds link-local"),
        (prefix("169.0.0.0/8"), "holds link-local"),
        (prefix("ff05::/64"), "holds multicast"),
        (prefix("127.0.0.0/24"), "holds loopback"),
        (prefix("::ffff:192.0.2.0/120"), "holds IPv4-mapped"),
        (prefix("::/0"), "holds unspecified"),
        (prefix(extra='family = "ipv4"'), "is IPv6, not ipv4"),
        (prefix(extra='gateway = "192.0.2.1"'), "use one of its family"),
        (prefix(extra='gateway = "x"'), "no address"),
        (prefix(extra='gateway = "ff02::1"'), "is no next hop"),
        (prefix(extra='gateway = "::ffff:192.0.2.1"'), "is no next hop"),
        (prefix("192.0.2.0/29", 'gateway = "255.255.255.255"'), "is no next hop"),
        (prefix("192.0.2.0/29", 'gateway = "0.0.0.1"'), "is no next hop"),
        (on_link('gateway = "192.0.2.0"'), "its broadcast address"),
        (on_link('gateway = "192.0.2.255"'), "its broadcast address"),
        (
            prefix(extra='gateway = "2001:db8:2::1"') + prefix("2001:db8:2::/64", name="q"),
            "f.toml:7: prefixes.p.gateway: 2001:db8:2::1 lies in prefix 'q'",
        ),
        (
            prefix("203.0.113.0/29", 'gateway = "192.0.2.9"', name="q") + on_link(),
            "f.toml:7: prefixes.q.gateway: 192.0.2.9 lies in prefix 'p'",
        ),
        (prefix(extra='gateway = "2001:db8:1::1"'), "all of which is delegated"),
        (prefix(extra='range = "192.0.2.1-192.0.2.2"'), "a range is for IPv4"),
        (prefix(extra="pool = 0"), "use 1 to 32768"),
        (prefix(extra="pool = 32769"), "use 1 to 32768"),
        (prefix(extra="pool = 257", placement="on-link"), "use 1 to 256"),
        (prefix("2001:db8::/127", "pool = 3"), "has room for 2 addresses, not for 3"),
        (prefix("2001:db8::/126", "pool = 4", placement="on-link"), "has room for 3"),
        (prefix("2001:db8::/128", "pool = 2"), "has room for 1"),
        (prefix("192.0.2.0/30", "pool = 3"), "has room for 2"),
        (prefix("192.0.2.0/24", placement="on-link"), 'range = "FIRST-LAST"'),
        (prefix("192.0.2.0/24", 'range = "192.0.2.1"'), "not of the form FIRST-LAST"),
        (prefix("192.0.2.0/24", 'range = "192.0.2.9-192.0.2.1"'), "comes after"),
        (prefix("192.0.2.0/24", 'range = "192.0.2.9-192.0.3.1"'), "is not within"),
        (
            prefix("192.0.2.0/24", 'range = "192.0.2.9-192.0.2.10"\npool = 3', "p", "on-link"),
            "the range 192.0.2.9-192.0.2.10 has room for 2",
        ),
        (prefix() + prefix("2001:db8:1::/80", name="q"), "overlaps with prefix 'p'"),
        (prefix().replace("eth0", "an-interface-too-long"), "cannot be an interface"),
        (prefix().replace("eth0", "a/b"), "cannot be an interface"),
        (prefix().replace("eth0", "lo"), "do not leave by lo"),
        (
            "[agent]\nmark_mask = 0xF\n"
            + "".join(prefix(f"2001:db8:{n}::/64", name=f"p{n}") for n in range(16)),
            "f.toml:2: agent.mark_mask: 4 bits tell 15 prefixes apart, there are 16",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, expected: str) -> None:
    message = refused(text)
    assert expected in message
    assert len(message.splitlines()) == 1
    assert ";" in message, "says what to do"


@pytest.mark.parametrize(
    "text",
    [
        prefix("2001:db8::/127", "pool = 2"),
        prefix("2001:db8::/60", "pool = 32768"),
        capped("sockets = 1\nrequests_per_minute = 100000"),
        '[classes.a]\nrefuse = ["raw", "ping", "mptcp", "udplite", "packet", "xdp"]\n',
        prefix("192.0.2.0/31", "pool = 2"),
        prefix("192.0.2.0/24", 'range = "192.0.2.9-192.0.2.10"\npool = 2', placement="on-link"),
        '[agent]\nmetrics = ""\n',
        '[agent]\nmetrics = "[::1]:9653"\ncgroup = "/sys/fs/cgroup/x"\nmark_mask = 0xFF\n',
        '[classes.a]\ncgroups = ["/", "user.slice/*/app"]\nallow = ["fixed"]\nstrict = true\n',
        prefix(
            "192.0.2.0/31", 'gateway = "192.0.2.1"\nrange = "192.0.2.0-192.0.2.0"', "p", "on-link"
        ),
        # The router is a host behind this one, to which the other prefix is handed on.
        prefix(extra='gateway = "2001:db8:2::1"')
        + prefix("2001:db8:2::/64", 'forwarded = "allow"', name="q"),
        f'[classes.a]\ncgroups = ["{"x" * 255}", "[{"y" * 300}]*"]\n',
        # Two ranges of one link are disjoint though their networks are not.
        prefix("192.0.2.0/24", 'range = "192.0.2.8-192.0.2.9"', "p", "on-link")
        + prefix("192.0.2.0/24", 'range = "192.0.2.10-192.0.2.11"', "q", "on-link"),
    ],
)
def test_what_makes_sense_is_taken(text: str) -> None:
    parse(text, Path("f.toml"))


def test_lines_are_found_in_all_ways_of_writing_keys() -> None:
    lines = lines_of(
        '# c\r\na.b = 1\r\nlong = """\r\n[not.a.table]\r\n"""\r\n\r\n["x y"]  # c\r\n'
        'list = [\r\n  1,\r\n]\r\ninline = { key = 1 }\r\n[ t . u ]\r\nk = "\u2028"\r\nlast = 1\r\n'
    )
    expected = {("a", "b"): 2, ("long",): 3, ("x y",): 7, ("x y", "list"): 8}
    expected |= {("x y", "inline", "key"): 11, ("t", "u"): 12, ("t", "u", "last"): 14}
    assert {path: lines.get(path) for path in expected} == expected
    assert ("not",) not in lines
    assert line_of(lines, ("t", "u", "missing")) == 12
    assert line_of(lines, ("nowhere",)) == 1


def host(*addresses: LocalAddress, links: tuple[str, ...] = ("lo", "eth0")) -> HostState:
    return HostState({n: Link(n, i, True) for i, n in enumerate(links, 1)}, addresses)


def at(address: str, ours: bool = False) -> LocalAddress:
    return LocalAddress(ip_address(address), 64, "eth0", ours)


def test_an_address_of_somebody_else_in_a_typed_prefix_is_an_error_that_names_it() -> None:
    text = "\n" + prefix()
    found = review(
        parse(text, Path("f")), host(at("2001:db8:1::7"), at("2001:db8:9::1"), at("fe80::1")), text
    )
    assert [f.line for f in found.errors] == [3]
    assert "2001:db8:1::7 on eth0 lies in this prefix" in found.errors[0].message
    assert found.warnings == ()


def test_an_address_that_the_network_gave_is_a_warning_and_the_hosts_own() -> None:
    text = prefix()
    given = replace(at("2001:db8:1::7"), from_network=True)
    found = review(parse(text, Path("f")), host(given), text)
    assert found.errors == ()
    assert any("the network gave it to this host" in each.message for each in found.warnings)


def test_untyped_allow_takes_such_an_address() -> None:
    text = prefix(extra='untyped = "allow"')
    assert review(parse(text, Path("f")), host(at("2001:db8:1::7"))).errors == ()


def test_a_family_without_untyped_address_is_an_error() -> None:
    text = prefix()
    errors = review(parse(text, Path("f")), host(at("2001:db8:1::7"), at("192.0.2.1")), text).errors
    assert len(errors) == 2
    assert any("all IPv6 addresses of this host would be typed" in f.message for f in errors)


def test_a_host_without_an_address_of_the_family_loses_nothing() -> None:
    ours = at("2001:db8:1::7", ours=True)
    assert review(parse(prefix(), Path("f")), host(ours, at("192.0.2.1"))).errors == ()


def test_a_missing_interface_is_a_warning_since_interfaces_come_and_go() -> None:
    found = review(parse(prefix(), Path("f")), host(links=("lo",)), prefix())
    assert found.errors == ()
    assert found.warnings == (
        Finding(
            5,
            "prefixes.p.interface: there is no interface 'eth0' now; the prefix serves nobody until"
            " it appears, see `ip link`",
        ),
    )


# --- what people paste, and what an editor leaves ---------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_refused_by_its_name(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text("[agent]\n", encoding=encoding)
    with pytest.raises(ConfigError, match="BOM"):
        load(tmp_path / "f.toml")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_told_from_bad_toml(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text("[agent]\n", encoding=encoding)
    with pytest.raises(ConfigError, match="UTF-16"):
        load(tmp_path / "f.toml")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _long(path: Path) -> None:
    path.touch()
    os.truncate(path, (1 << 24) + 1)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_fifo, "no regular file"),
        (_endless, "no regular file"),
        (_long, "longer than 16 MiB"),
        (_loop, "Too many levels"),
        (Path.mkdir, "Is a directory"),
    ],
)
def test_what_is_no_file_of_a_sensible_length_is_refused_at_once(
    make: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    make(tmp_path / "f.toml")
    with pytest.raises(ConfigError, match=words):
        load(tmp_path / "f.toml")
    assert agent_settings(tmp_path / "f.toml") == AgentConfig(), "other commands go on without it"


@pytest.mark.parametrize(
    ("pattern", "right"),
    [
        ("/sys/fs/cgroup/unified/system.slice/ssh.service", "system.slice/ssh.service"),
        ("/sys/fs/cgroup/system.slice/ssh.service", "system.slice/ssh.service"),
        ("sys/fs/cgroup/system.slice/ssh.service/", "system.slice/ssh.service"),
        ("//sys//fs/cgroup/unified//user.slice/*/app.slice", "user.slice/*/app.slice"),
        ("/sys/fs/cgroup", "/"),
        ("0::/system.slice/ssh.service", "system.slice/ssh.service"),
        ("0::/", "/"),
    ],
)
def test_a_cgroup_as_classes_prints_it_is_refused_with_the_form_that_matches(
    pattern: str, right: str
) -> None:
    said = refused(f'[classes.a]\ncgroups = ["{pattern}"]\n')
    assert f'write it as below the attach point: "{right}"' in said
    assert parse(f'[classes.a]\ncgroups = ["{right}"]\n', Path("f.toml"))


def test_a_cgroup_below_the_configured_attach_point_is_told_from_there() -> None:
    said = refused(
        '[agent]\ncgroup = "/mnt/cg/odm"\n[classes.a]\ncgroups = ["/mnt/cg/odm/x.service"]\n'
    )
    assert 'below the attach point: "x.service"' in said


def test_a_cgroup_outside_of_the_configured_attach_point_is_refused_as_such() -> None:
    said = refused(
        '[agent]\ncgroup = "/sys/fs/cgroup/odm"\n'
        '[classes.a]\ncgroups = ["/sys/fs/cgroup/other/x.service"]\n'
    )
    assert "is outside of /sys/fs/cgroup/odm" in said


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("a\\u0000b", "no cgroup's name can have"),
        ("a*\\n", "no cgroup's name can have"),
        ("a/" + "x" * 256, "more than 255 bytes"),
        ("é" * 128, "more than 255 bytes"),
    ],
)
def test_a_name_that_no_cgroup_can_have_is_refused(pattern: str, words: str) -> None:
    assert words in refused(f'[classes.a]\ncgroups = ["{pattern}"]\n')


@pytest.mark.parametrize("pattern", ["a/../b", "a//b", "..", "./a", "a/."])
def test_a_cgroup_that_could_never_match_is_refused(pattern: str) -> None:
    assert "is not a path" in refused(f'[classes.a]\ncgroups = ["{pattern}"]\n')


@pytest.mark.parametrize("pattern", ["/a/b", "a/b/", "/a/b/"])
def test_slashes_around_a_cgroup_change_nothing(pattern: str) -> None:
    said = refused(f'[classes.a]\ncgroups = ["a/b"]\n[classes.b]\ncgroups = ["{pattern}"]\n')
    assert "also in 'a'" in said


# --- what is no error, and won't work all the same ----------------------------------------------

ON_W0 = HostState(
    links={"eth0": Link("eth0", 2, True)},
    addresses=(LocalAddress(ip_address("192.0.2.10"), 24, "eth0", ours=False),),
    main_routes=(Route(254, Family.IPV4, ip_network("192.0.2.0/24"), interface="eth0"),),
)
GATEWAY = 'gateway = "{}"\n'


def warnings(text: str, host: HostState = ON_W0) -> list[str]:
    result = review(parse(text, Path("f.toml")), host, text)
    assert result.errors == ()
    return [found.message for found in result.warnings]


@pytest.mark.parametrize(
    ("gateway", "words"),
    [
        ("192.0.2.1", None),
        ("192.0.2.10", "this host's own address"),
        ("203.0.113.1", "is in no subnet that eth0 is connected to"),
        ("192.0.2.0", "the own or the broadcast address of the subnet"),
        ("192.0.2.255", "the own or the broadcast address of the subnet"),
    ],
)
def test_a_gateway_by_which_nothing_leaves_is_a_warning(gateway: str, words: str | None) -> None:
    said = warnings(prefix("198.51.100.0/28", GATEWAY.format(gateway)))
    assert len(said) == (words is not None)
    assert all(words is not None and words in each for each in said)


@pytest.mark.parametrize("gateway", ["fe80::1", "2001:db8:9::1"])
def test_a_link_local_gateway_needs_no_subnet(gateway: str) -> None:
    said = warnings(prefix("2001:db8:1::/64", GATEWAY.format(gateway)))
    assert len(said) == (gateway != "fe80::1")


def test_a_gateway_among_the_prefixs_own_addresses_is_refused() -> None:
    own = 'range = "198.51.100.20-198.51.100.29"\n'
    text = prefix("198.51.100.0/24", GATEWAY.format("198.51.100.21") + own, placement="on-link")
    assert "the addresses of this host itself" in refused(text)


@pytest.mark.parametrize(
    ("prefixes", "words"),
    [
        ("", ["there is no prefix of the type fixed"]),
        (prefix("198.51.100.0/28"), []),
        (prefix("2001:db8:1::/64"), ["there is no IPv4 prefix of the type fixed"]),
    ],
)
def test_a_class_whose_type_no_prefix_has_is_warned_of(prefixes: str, words: list[str]) -> None:
    said = warnings(prefixes + '[classes.a]\nallow = ["fixed"]\ndefault = "fixed"\n')
    assert len(said) == len(words)
    assert all(word in each for word, each in zip(words, said, strict=True))
