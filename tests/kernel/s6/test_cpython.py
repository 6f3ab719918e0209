"""S6: CPython's own tests of sockets, inside and outside the attached cgroup."""

import subprocess
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest

from tests.lab.cgroup import Cgroup
from tests.lab.host import Site
from tests.lab.place import Place
from tests.lab.world import PLAIN, World

#: The distribution's interpreter: libpython3.*-testsuite belongs to it.
_PYTHON: Final = "/usr/bin/python3"
#: AF_VSOCK has nothing to do with IP, and its test waits for ever on some hypervisors.
_IGNORED: Final = "*VSOCK*"
_TIMEOUT_S: Final = 200


def _start(place: Place, folder: Path, name: str) -> "subprocess.Popen[str]":
    log = (folder / f"{name}.log").open("w")
    with log:
        return place.spawn(
            [
                *(
                    _PYTHON,
                    "-m",
                    "test",
                    "-i",
                    _IGNORED,
                    "--junit-xml",
                    str(folder / f"{name}.xml"),
                ),
                *("--tempdir", str(folder), "test_socket"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _results(folder: Path, name: str) -> dict[str, str]:
    """The outcome of each test: "passed", "skipped", "failure" or "error"."""
    file = folder / f"{name}.xml"
    assert file.exists(), (folder / f"{name}.log").read_text()
    return {
        str(case.get("name")): next((each.tag for each in case if each.tag in _BAD), "passed")
        for case in ElementTree.parse(file).iter("testcase")
    }


_BAD: Final = {"skipped", "failure", "error"}


@pytest.mark.timeout(_TIMEOUT_S + 40)
def test_S6_cpython_socket_tests_give_the_same_results(tmp_path: Path) -> None:
    """Nobody's agent, an unclassified cgroup, a class without a default, and one with: all alike.

    They call loopback addresses, which even a class with a default type leaves alone.
    """
    with Site() as site, Cgroup("outside") as outside, World(tmp_path) as world:
        places = {
            "outside": Place(outside, site.host),
            PLAIN: world.place(PLAIN),
            "nothing": world.place("nothing"),
            "session": world.place("session"),
        }
        running = [_start(place, tmp_path, name) for name, place in places.items()]
        for each in running:
            each.wait(_TIMEOUT_S)
        stock, *others = (_results(tmp_path, name) for name in places)
    assert sum(outcome == "passed" for outcome in stock.values()) > 500
    for name, results in zip(list(places)[1:], others, strict=True):
        assert results == stock, name
