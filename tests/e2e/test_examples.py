"""The examples as a developer builds and runs them, on a stock host and under an agent.

The witness is the other side: the address that the server, or the correspondent, saw.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import TYPES, AddressType, Family
from tests.lab.agent import LabClass, Settings
from tests.lab.cgroup import Cgroup
from tests.lab.host import CORRESPONDENT, PREFIXES, SESSION, prefix_of, type_of
from tests.lab.netns import NetNs
from tests.lab.world import World

ROOT: Final = Path(__file__).parents[2]
HEADERS: Final = ROOT / "bpf" / "uapi"
C_EXAMPLES: Final = sorted((ROOT / "examples" / "c").glob("*.c"))
STRICT: Final = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{HEADERS}"]
PORT: Final = 7100
FAMILIES: Final = pytest.mark.parametrize("family", list(Family), ids=lambda f: f"ipv{f.value}")
LANGUAGES: Final = pytest.mark.parametrize("language", ["c", "python"])
LOOPBACK: Final = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}

Command = Callable[[str, str], list[str]]


def compiled(command: list[str]) -> None:
    """Run a compiler; its complaints are the test's failure."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command of an example by name, in a language; C ones are built as the docs say."""
    folder = tmp_path_factory.mktemp("examples")
    for source in C_EXAMPLES:
        compiled(["cc", "-std=c99", *STRICT, "-o", str(folder / source.stem), str(source)])

    def command(name: str, language: str) -> list[str]:
        if language == "c":
            return [str(folder / name)]
        return [sys.executable, str(ROOT / "examples" / "python" / f"{name}.py")]

    return command


@contextmanager
def serving(command: list[str]) -> Iterator[str]:
    """A running server example; gives the line with which it says where it listens."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
            process.wait(5)
        finally:
            process.kill()
    assert process.returncode == 0


# --- the header -------------------------------------------------------------------------------


def test_the_header_is_plain_cplusplus_too(tmp_path: Path) -> None:
    program = tmp_path / "header.cc"
    program.write_text(
        '#include "odm.h"\n'
        "int main() { return odm_set_type(-1, FIXED_IP_ADDRESS) + odm_get_type(-1)"
        " + odm_supported(-1) == -3 ? 0 : 1; }\n"
    )
    compiled(["g++", "-std=c++11", *STRICT, "-o", str(tmp_path / "header"), str(program)])
    assert subprocess.run([tmp_path / "header"], check=False).returncode == 0


def test_an_unused_header_costs_no_warning(tmp_path: Path) -> None:
    program = tmp_path / "nothing.c"
    program.write_text('#include "odm.h"\nint main(void) { return 0; }\n')
    compiled(["cc", "-std=c99", *STRICT, "-o", str(tmp_path / "nothing"), str(program)])


def test_S8_a_type_that_nobody_hears_leaves_the_preferences_as_they_were(
    tmp_path: Path, stock: Cgroup
) -> None:
    program = tmp_path / "unheard.c"
    program.write_text(
        '#include "odm.h"\n'
        "int main(void)\n{\n"
        "\tint fd = socket(AF_INET6, SOCK_DGRAM, 0);\n"
        "\tuint32_t before = 2, after = 0; /* RFC 5014: prefer the public address */\n"
        "\tsocklen_t size = sizeof(after);\n"
        "\tsetsockopt(fd, IPPROTO_IPV6, ODM_SOCKOPT, &before, sizeof(before));\n"
        "\tif (odm_set_type(fd, FIXED_IP_ADDRESS) != -1 || errno != ENOTSUP)\n\t\treturn 1;\n"
        "\tgetsockopt(fd, IPPROTO_IPV6, ODM_SOCKOPT, &after, &size);\n"
        "\treturn after & 2 ? 0 : 2;\n}\n"
    )
    compiled(["cc", "-std=c99", *STRICT, "-o", str(tmp_path / "unheard"), str(program)])
    assert stock.run([str(tmp_path / "unheard")]).returncode == 0


#: What applications write, and the same in the header that the eBPF programs share.
SAME_VALUES: Final = {
    "FIXED_IP_ADDRESS": "ODM_FIXED",
    "SESSION_LASTING_IP_ADDRESS": "ODM_SESSION_LASTING",
    "NON_PERSISTENT_IP_ADDRESS": "ODM_NONPERSISTENT",
    "GRACEFUL_REPLACEMENT_IP_ADDRESS": "ODM_GRACEFUL_REPLACEMENT",
    "UNSPECIFIED_IP_ADDRESS": "ODM_UNSPECIFIED",
    "ODM_ON_DEMAND_SHIFT": "ODM_FIELD_SHIFT",
    "ODM_ON_DEMAND_MASK": "ODM_FIELD_MASK",
}


def test_the_header_agrees_with_the_programs(tmp_path: Path) -> None:
    program = tmp_path / "values.c"
    asserts = "".join(
        f'_Static_assert((int){public} == (int){inner}, "{public}");\n'
        for public, inner in SAME_VALUES.items()
    )
    # Both define the two reserved bits: a difference is a redefinition, which -Werror refuses.
    program.write_text(f'#include <linux/bpf.h>\n#include "odm.h"\n#include "odm_abi.h"\n{asserts}')
    include = [f"-I{HEADERS}", f"-I{ROOT / 'bpf'}"]
    compiled(["cc", "-Wall", "-Werror", *include, "-fsyntax-only", str(program)])


def test_the_header_agrees_with_python() -> None:
    text = (HEADERS / "odm.h").read_text()
    names = {
        "FIXED": AddressType.FIXED,
        "SESSION_LASTING": AddressType.SESSION_LASTING,
        "NON_PERSISTENT": AddressType.NONPERSISTENT,
        "GRACEFUL_REPLACEMENT": AddressType.GRACEFUL_REPLACEMENT,
    }
    found = {name: int(value) for name, value in re.findall(r"(\w+)_IP_ADDRESS = (\d)", text)}
    assert found == {"UNSPECIFIED": 0} | {name: int(type) for name, type in names.items()}


# --- without an agent -------------------------------------------------------------------------


@LANGUAGES
@FAMILIES
def test_S8_client_and_server_fall_back_on_a_stock_host(
    example: Command, language: str, family: Family, stock: Cgroup
) -> None:
    here = LOOPBACK[family]
    with serving([*example("server", language), f"-{family.value}", str(PORT), "1"]) as where:
        assert where == f"listening on {'0.0.0.0' if family == 4 else '::'} {PORT}"
        done = stock.run([*example("client", language), here, str(PORT)])
    assert done.returncode == 0, done.stderr
    assert "not supported" in done.stderr
    assert done.stdout.splitlines()[0] == f"from {here}"
    assert done.stdout.splitlines()[1].startswith(f"{here} ")


@LANGUAGES
def test_S8_four_types_says_not_supported_on_a_stock_host(
    example: Command, language: str, stock: Cgroup
) -> None:
    done = stock.run([*example("four_types", language), "127.0.0.1", "9"])
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(\S+) +- \(Operation not supported\)$", done.stdout, re.M) == [
        each.word for each in TYPES
    ]


@pytest.fixture
def stock() -> Iterator[Cgroup]:
    """A cgroup that nobody has classified, in the machine's own network namespace."""
    with Cgroup("stock") as cgroup:
        yield cgroup


# --- under an agent ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all tests here: a class that may use everything, one that may use nothing."""
    classes = {"all": LabClass(allow=TYPES), "none": LabClass()}
    settings = Settings(prefixes=PREFIXES, classes=classes)
    with World(tmp_path_factory.mktemp("world"), settings) as made:
        yield made


@LANGUAGES
@FAMILIES
def test_S1_four_sockets_of_one_process_get_four_types(
    example: Command, world: World, language: str, family: Family
) -> None:
    done = world.place("all").run([*example("four_types", language), CORRESPONDENT[family], "7001"])
    assert done.returncode == 0, done.stderr
    rows = dict(line.split() for line in done.stdout.splitlines())
    assert {word: type_of(address).word for word, address in rows.items()} == {
        each.word: each.word for each in TYPES
    }


@LANGUAGES
@FAMILIES
def test_S2_the_client_is_seen_from_a_session_lasting_address(
    example: Command, world: World, language: str, family: Family
) -> None:
    world.peer.seen()
    done = world.place("all").run([*example("client", language), CORRESPONDENT[family], "7001"])
    assert done.returncode == 0 and not done.stderr, done.stderr
    (caller,) = world.peer.seen()
    assert caller.source in prefix_of(AddressType.SESSION_LASTING, family)
    assert f"from {caller.source}\n" in done.stdout


@LANGUAGES
@FAMILIES
@pytest.mark.parametrize("cgroup", ["none", "unclassified"])
def test_A1_a_client_that_may_not_goes_on_without(
    example: Command, world: World, language: str, family: Family, cgroup: str
) -> None:
    world.peer.seen()
    done = world.place(cgroup).run([*example("client", language), CORRESPONDENT[family], "7001"])
    assert done.returncode == 0, done.stderr
    assert "going on without" in done.stderr
    assert "not supported" not in done.stderr
    (caller,) = world.peer.seen()
    assert not type_of(caller.source)


@LANGUAGES
@FAMILIES
def test_T5_the_server_listens_on_the_fixed_address_only(
    example: Command, world: World, language: str, family: Family
) -> None:
    command = [*example("server", language), f"-{family.value}", str(PORT), "1"]
    place = world.place("all")
    server = place.cgroup.command(command, place.netns)
    with serving(server) as where:
        address = where.split()[2]
        assert address in prefix_of(AddressType.FIXED, family)
        answer = world.peer.dial("tcp", address, PORT)
    assert answer["from"] == address
    assert answer["answer"].split()[0] in _ends(world.site.c)


def _ends(netns: NetNs) -> set[str]:
    """All addresses of a namespace."""
    return set(re.findall(r"inet6? ([^/ ]+)", netns.ip("-o", "address")))


@FAMILIES
def test_support_is_detected_under_an_agent(world: World, family: Family, tmp_path: Path) -> None:
    """Also for a class that may use nothing, and for MPTCP; the asked socket is left alone."""
    program = tmp_path / "support.c"
    domain = "AF_INET6" if family is Family.IPV6 else "AF_INET"
    program.write_text(
        '#include <stdio.h>\n#include "odm.h"\n'
        "int main(void)\n{\n"
        f"\tint tcp = socket({domain}, SOCK_STREAM, 0), udp = socket({domain}, SOCK_DGRAM, 0);\n"
        f"\tint mptcp = socket({domain}, SOCK_STREAM, 262);\n"
        '\tprintf("%d %d %d", odm_supported(tcp), odm_supported(udp), odm_supported(mptcp));\n'
        '\tprintf(" %d\\n", odm_get_type(tcp));\n\treturn 0;\n}\n'
    )
    compiled(["cc", "-std=c99", *STRICT, "-o", str(tmp_path / "support"), str(program)])
    python = (
        "import socket; from odm_agent import client; "
        "kinds = [(socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 0), (socket.SOCK_STREAM, 262)]; "
        f"socks = [socket.socket(socket.{domain}, *kind) for kind in kinds]; "
        "print(*(int(client.supported(sock)) for sock in socks), client.get_type(socks[0]).value)"
    )
    for cgroup in ("all", "none", "unclassified"):
        for command in ([str(tmp_path / "support")], [sys.executable, "-c", python]):
            assert world.place(cgroup).run(command).stdout.split() == ["1", "1", "1", "0"], command


@pytest.mark.parametrize(
    ("language", "option"),
    [("c", ()), ("python", ()), ("python", ("--asyncio",))],
    ids=["c", "python", "asyncio"],
)
def test_T4_an_application_is_told_what_becomes_of_its_address(
    example: Command, language: str, option: tuple[str, ...], tmp_path: Path
) -> None:
    """While it does nothing but wait for it. The successor is what new sockets are given."""
    classes = {"session": LabClass(allow=(SESSION,), default=SESSION)}
    settings = Settings(prefixes=PREFIXES, classes=classes, extra={"session6": {"rotate": "1h"}})
    with World(tmp_path, settings) as world:
        command = [*example("notices", language), CORRESPONDENT[Family.IPV6], "7001", "2", *option]
        environment = {**os.environ, "ODM_WAIT_SOCKET": str(world.agent.wait_socket)}
        place = world.place("session")
        with place.spawn(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        ) as application:
            try:
                assert application.stdout is not None
                held = world.address(SESSION, Family.IPV6)
                assert application.stdout.readline() == f"preferred {held} -\n"
                done = world.agent.call("rotate", "session6", "--socket", str(world.agent.socket))
                assert done.returncode == 0, done.stderr
                told, errors = application.communicate(timeout=20)
            finally:
                application.kill()
        assert (application.returncode, errors) == (0, "")
        state, former, successor = told.split()[:3]
        assert (state, former) == ("deprecated", held)
        if successor != "-":  # what is told first may be from before the next one serves
            world.peer.seen()
            place.run([*example("client", "python"), CORRESPONDENT[Family.IPV6], "7001"])
            (caller,) = world.peer.seen()
            assert str(caller.source) == successor


@pytest.mark.parametrize(
    ("language", "option"),
    [("c", ()), ("python", ()), ("python", ("--asyncio",))],
    ids=["c", "python", "asyncio"],
)
def test_S8_without_an_agent_an_application_is_told_nothing(
    example: Command, language: str, option: tuple[str, ...], stock: Cgroup
) -> None:
    done = stock.run([*example("notices", language), "127.0.0.1", "9", "1", *option])
    assert done.returncode == 0 and not done.stdout
    assert "none of odm-agent's" in done.stderr


def test_a_type_can_be_taken_back(world: World) -> None:
    python = (
        "import socket; from odm_agent import client; from odm_agent.client import AddressType\n"
        "for family in (socket.AF_INET, socket.AF_INET6):\n"
        "    with socket.socket(family, socket.SOCK_DGRAM) as sock:\n"
        "        client.set_type(sock, AddressType.FIXED)\n"
        "        client.set_type(sock, AddressType.UNSPECIFIED)\n"
        "        print(client.get_type(sock).word)\n"
    )
    done = world.place("all").run([sys.executable, "-c", python])
    assert done.stdout.split() == ["unspecified", "unspecified"], done.stderr


def test_fallback_to_the_stock_way_is_not_a_refusal(world: World) -> None:
    """`client.connect` falls back where types are unknown, not where they are refused."""
    python = (
        "from odm_agent import client\n"
        "try:\n"
        f"    client.connect(('{CORRESPONDENT[Family.IPV4]}', 7001), client.AddressType.FIXED)\n"
        "except PermissionError as error:\n"
        "    print(error.errno)\n"
    )
    world.peer.seen()
    assert world.place("none").run([sys.executable, "-c", python]).stdout.split() == ["13"]
    assert not world.peer.seen()
