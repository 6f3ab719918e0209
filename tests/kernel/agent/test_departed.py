"""A socket that outlives its cgroup keeps its class: what it still has to send must leave."""

from odm_agent.model import Family
from tests.kernel.agent.conftest import eventually
from tests.lab.client import Kind
from tests.lab.host import SESSION
from tests.lab.world import World


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
