"""D9: the type that a class gives to applications that say nothing."""

from subprocess import PIPE

from odm_agent.core.model import AddressType, Family
from tests.lab.cases import each_family, each_kind, each_type
from tests.lab.client import Kind, call, exchange
from tests.lab.host import (
    FIXED,
    SESSION,
    type_of,
)
from tests.lab.peer import GREETING_PORT
from tests.lab.place import Place
from tests.lab.process import wait_until
from tests.lab.world import BY_DEFAULT, World


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.SENDTO4)
def test_D9_children_inherit_from_the_nearest_classified_ancestor(world: World, kind: Kind) -> None:
    def used(path: str) -> AddressType:
        return type_of(world.place(path).do(lambda: call(kind)).seen)

    assert used("fixed/a") is FIXED
    assert used("fixed/a/b") is FIXED
    assert used("fixed/inner") is SESSION
    assert used("fixed/inner/deeper") is SESSION
    assert used("plain/a") is AddressType.UNSPECIFIED


@each_kind(Kind.TCP6, Kind.UDP4)
def test_D9_cgroup_that_matches_a_glob_is_classified_as_it_appears(
    world: World, kind: Kind
) -> None:
    place = world.place(f"apps/{kind.name.lower()}.service")
    other = world.place(f"apps/{kind.name.lower()}.slice")
    wait_until(
        lambda: type_of(place.do(lambda: call(kind)).seen) is SESSION,
        "the new cgroup is classified",
        timeout_s=1,
    )
    assert type_of(other.do(lambda: call(kind)).seen) is AddressType.UNSPECIFIED


def test_D9_process_that_started_before_its_cgroup_was_classified_counts(world: World) -> None:
    def application() -> bool:
        """One process, a new socket each time: no restart is needed."""
        for _ in range(200):
            with Kind.TCP6.open() as sock:
                if type_of(exchange(sock, Kind.TCP6).seen) is SESSION:
                    return True
        return False

    assert world.place("apps/early.service").do(application)


@each_family
@each_type()
def test_D9_unmodified_curl_and_ncat_use_the_default(
    world: World, type: AddressType, family: Family
) -> None:
    kind = Kind.TCP6 if family is Family.IPV6 else Kind.TCP4
    host = kind.destination[0]
    bracketed = f"[{host}]" if ":" in host else host
    place = world.place(BY_DEFAULT[type])
    plain = place.run(["curl", "-sS", f"http://{bracketed}/"])
    fixed_port = place.run(["curl", "-sS", "--local-port", "26100-26110", f"http://{bracketed}/"])
    ncat = place.run(["ncat", "--recv-only", host, str(GREETING_PORT)])
    for done in (plain, fixed_port, ncat):
        assert done.stdout, done.stderr
        assert type_of(done.stdout.split()[0]) is type, done.args
    assert type_of(_by_udp_ncat(place, host)) is type
    assert {type_of(caller.source) for caller in world.peer.seen()} == {type}


@each_family
def test_D9_unmodified_dig_binds_first_and_uses_the_default(world: World, family: Family) -> None:
    kind = Kind.UDP6 if family is Family.IPV6 else Kind.UDP4
    server = kind.destination[0]
    done = world.place("session").run(["dig", "+short", "+tries=1", f"@{server}", "a.example"])
    assert done.stdout == "203.0.113.1\n", done.stdout + done.stderr
    assert [type_of(caller.source) for caller in world.peer.seen()] == [SESSION]


def _by_udp_ncat(place: Place, host: str) -> str:
    """Who the correspondent says that `ncat -u` is; ncat never ends by itself."""
    with place.spawn(["ncat", "-u", host, "7001"], stdin=PIPE, stdout=PIPE) as ncat:
        assert ncat.stdin is not None and ncat.stdout is not None
        ncat.stdin.write("hello")
        ncat.stdin.flush()
        try:
            return str(ncat.stdout.readline().split()[0])
        finally:
            ncat.kill()
