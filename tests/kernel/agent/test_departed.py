"""A socket that outlives its cgroup keeps its class as long as it lives, and no longer."""

import socket
from pathlib import Path

import pytest

from odm_agent.core.model import Family
from odm_agent.datapath.maps.writer import MapWriter
from tests.kernel.agent.conftest import eventually
from tests.lab.client import Kind
from tests.lab.host import SESSION
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.lab.world import World


def is_known(world: World, cgroup_id: int) -> bool:
    """Whether the programs know a class of that cgroup."""
    with MapWriter(world.agent.pins) as datapath:
        return cgroup_id in datapath.classified()


def restart(folder: Path) -> None:
    """A service manager's: the same name, another cgroup."""
    wait_until(lambda: not (folder / "cgroup.procs").read_text(), "its process has gone elsewhere")
    folder.rmdir()
    folder.mkdir()


@pytest.mark.parametrize("path", ["session", "apps/one.service"])
def test_connection_that_was_accepted_outlives_its_service(own: World, path: str) -> None:
    """sshd's life: it accepts, its child moves to a session scope, the service is restarted."""
    service = own.place(path)
    number, folder = service.cgroup.id, service.cgroup.path
    address = own.address(SESSION, Family.IPV6)
    step, session = own.agent.folder / "step", own.place("plain").cgroup.procs

    def serve(ready: Ready) -> None:
        with socket.create_server((address, 7177), family=socket.AF_INET6) as server:
            ready(None)
            connection, _ = server.accept()
        session.write_text("0")
        with connection:
            while question := connection.recv(100):
                connection.send(question)
        step.write_text("closed")
        while True:
            socket.socketpair()[0].recv(1)

    with service.background(serve), own.site.c.call(socket.socket, socket.AF_INET6) as peer:
        peer.settimeout(5)
        peer.connect((address, 7177))
        peer.send(b"before")
        assert peer.recv(100) == b"before"
        restart(folder)
        for _ in range(3):  # whoever looks at the cgroups now, and however often
            own.agent.reload()
        own.agent.stop()
        own.agent.start()
        peer.send(b"after")
        assert peer.recv(100) == b"after"
        assert is_known(own, number)
        peer.close()
        wait_until(step.exists, "closed")
        eventually(lambda: not is_known(own, number), "forgotten with its last socket", 10)


def test_socket_of_a_removed_cgroup_goes_on_sending(own: World) -> None:
    gone = own.place("apps/one.service")
    eventually(
        lambda: any(
            "one.service" in each for c in own.agent.read("classes") for each in c["cgroups"]
        ),
        "the cgroup classified",
    )
    elsewhere = own.place("plain").cgroup.procs
    folder = gone.cgroup.path

    def outlive() -> list[str]:
        with Kind.UDP6.open() as sock:
            sock.connect(Kind.UDP6.destination)
            sock.send(b"before")
            seen = [sock.recv(100).decode().split()[0]]
            elsewhere.write_text("0")
            folder.rmdir()
            eventually(
                lambda: (
                    not any(
                        "one.service" in each
                        for c in own.agent.read("classes")
                        for each in c["cgroups"]
                    )
                ),
                "the removal noticed",
            )
            sock.send(b"after")
            return [*seen, sock.recv(100).decode().split()[0]]

    typed = own.address(SESSION, Family.IPV6)
    assert gone.do(outlive) == [typed, typed]
