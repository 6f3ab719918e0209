"""Real scrapes over loopback of readings that the test makes up."""

import os
import resource
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from odm_agent.core.lifetimes import Cause
from odm_agent.core.model import AddressType, Cap, Family
from odm_agent.core.outages import BUCKETS_S, Fate, Outcome, Tally
from odm_agent.datapath.base import VerdictKey
from odm_agent.metrics import endpoint
from odm_agent.metrics.endpoint import MOST_CONNECTIONS, MetricsError, split_address, start
from odm_agent.metrics.readings import Info, Lifetimes, Readings, Reloads, VerdictLabels

FIXED, SESSION = AddressType.FIXED, AddressType.SESSION_LASTING
Labels = frozenset[tuple[str, str]]


@dataclass
class Made:
    """Readings as the agent gives them; `fail` makes one of them raise."""

    fail: str = ""

    def _may(self, name: str) -> None:
        if self.fail == name:
            raise RuntimeError(f"{name} cannot be read")

    def info(self) -> Info:
        self._may("info")
        return Info("0.1.0", 1)

    def class_names(self) -> Mapping[int, str]:
        return {1: "ssh"}

    def verdicts(self) -> Iterable[tuple[VerdictLabels, int]]:
        self._may("verdicts")
        return {
            VerdictKey(1, SESSION, "assign", "default", "connect4"): 7,
            VerdictKey(0, FIXED, "refuse", "not-allowed", "bind6"): 2,
            VerdictKey(9, FIXED, "refuse", "not-allowed", "bind6"): 1,
        }.items()

    def sockets(self) -> Mapping[tuple[int, AddressType, Family], int]:
        self._may("sockets")
        return {(0, FIXED, Family.IPV4): 3, (1, SESSION, Family.IPV6): 5}

    def tracked(self) -> Mapping[tuple[int, AddressType, Family], int]:
        self._may("sockets")
        return {(1, FIXED, Family.IPV4): 2}

    def caps(self) -> Iterable[tuple[int, Cap]]:
        self._may("caps")
        return [(1, Cap(FIXED, 10, 0)), (1, Cap(SESSION, 0, 60))]

    def losses(self) -> Mapping[str, int]:
        self._may("losses")
        return {"verdict": 0, "address": 1}

    def corrections(self) -> int:
        return 6

    def sent(self) -> Mapping[tuple[int, AddressType], tuple[int, int]]:
        self._may("sent")
        return {(1, FIXED): (1500, 2)}

    def lifetimes(self) -> Iterable[Lifetimes]:
        self._may("lifetimes")
        return [Lifetimes("web", SESSION, 60.0, None, 3), Lifetimes("cap", SESSION, None, 700, 0)]

    def rotations(self) -> Mapping[tuple[str, AddressType, Cause], int]:
        return {("web", SESSION, Cause.TIME): 4, ("web", SESSION, Cause.BUDGET): 1}

    def requests(self) -> Mapping[tuple[AddressType, Family, str], int]:
        self._may("requests")
        return {(SESSION, Family.IPV6, "granted"): 3}

    def request_latency(self) -> Mapping[AddressType, tuple[Iterable[tuple[float, int]], float]]:
        return {SESSION: ([(0.5, 1), (1.0, 0), (float("inf"), 2)], 9.5)}

    def network_requests(self) -> Mapping[tuple[AddressType, str], int]:
        self._may("network")
        return {(FIXED, "granted"): 3, (FIXED, "timed-out"): 1}

    def network_drops(self) -> Mapping[str, int]:
        return {"too-large": 2}

    def handovers(self) -> Tally:
        self._may("handovers")
        counts = (1, *[0] * (len(BUCKETS_S) - 1), 2)
        return Tally(
            {(SESSION, Outcome.GIVEN_UP): 4},
            {SESSION: counts},
            {SESSION: 8.5},
            {(SESSION, Fate.MOVED): 6},
        )

    def addresses(self) -> Mapping[tuple[AddressType, Family, str], int]:
        self._may("addresses")
        return {(FIXED, Family.IPV6, "ready"): 16}

    def prefixes(self) -> Mapping[tuple[AddressType, Family, str], int]:
        self._may("prefixes")
        return {(FIXED, Family.IPV6, "waiting"): 1}

    def reloads(self) -> Reloads:
        self._may("reloads")
        return Reloads(ok=2, failed=1, last_success=1700000000.5)

    def alarms(self) -> int:
        self._may("alarms")
        return 4


def scrape(port: int) -> dict[tuple[str, Labels], float]:
    """All samples by name and labels, as Prometheus's own parser reads them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**words: str) -> Labels:
    """Labels, with `class_` for `class`."""
    return frozenset((name.rstrip("_"), word) for name, word in words.items())


def test_a_scrape_shows_every_metric() -> None:
    with start("127.0.0.1:0", Made()) as server:
        seen = scrape(server.port)
    bind = {"type": "fixed", "verdict": "refuse", "reason": "not-allowed", "hook": "bind6"}
    listed = {"counted": "sock_diag"}
    connect = {"verdict": "assign", "reason": "default", "hook": "connect4"}
    expected = {
        ("odm_agent_info", labels(version="0.1.0", abi="1")): 1,
        ("odm_verdicts_total", labels(class_="ssh", type="session-lasting", **connect)): 7,
        ("odm_verdicts_total", labels(class_="unclassified", **bind)): 2,
        ("odm_verdicts_total", labels(class_="class-9", **bind)): 1,
        ("odm_sockets", labels(class_="unclassified", type="fixed", family="ipv4", **listed)): 3,
        ("odm_sockets", labels(class_="ssh", type=SESSION.word, family="ipv6", **listed)): 5,
        ("odm_sockets", labels(class_="ssh", type="fixed", family="ipv4", counted="kernel")): 2,
        ("odm_cap_sockets", labels(class_="ssh", type="fixed")): 10,
        ("odm_cap_requests_per_minute", labels(class_="ssh", type="session-lasting")): 60,
        ("odm_sent_bytes_total", labels(class_="ssh", type="fixed")): 1500,
        ("odm_sent_packets_total", labels(class_="ssh", type="fixed")): 2,
        ("odm_address_lifetime_left_seconds", labels(prefix="web", type="session-lasting")): 60,
        ("odm_address_lifetime_left_bytes", labels(prefix="cap", type="session-lasting")): 700,
        ("odm_lingering_addresses", labels(prefix="web", type="session-lasting")): 3,
        ("odm_lingering_addresses", labels(prefix="cap", type="session-lasting")): 0,
        ("odm_rotations_total", labels(prefix="web", type=SESSION.word, cause="time")): 4,
        ("odm_rotations_total", labels(prefix="web", type=SESSION.word, cause="budget")): 1,
        ("odm_lost_total", labels(what="verdict")): 0,
        ("odm_lost_total", labels(what="address")): 1,
        ("odm_count_corrections_total", labels()): 6,
        ("odm_network_requests_total", labels(type="fixed", outcome="granted")): 3,
        ("odm_network_requests_total", labels(type="fixed", outcome="timed-out")): 1,
        ("odm_network_dropped_total", labels(reason="too-large")): 2,
        ("odm_handovers_total", labels(type=SESSION.word, outcome="given-up")): 4,
        **{
            ("odm_handover_outage_seconds_bucket", labels(type=SESSION.word, le=str(bound))): 1
            for bound in BUCKETS_S
        },
        ("odm_handover_outage_seconds_bucket", labels(type=SESSION.word, le="+Inf")): 3,
        ("odm_handover_outage_seconds_count", labels(type=SESSION.word)): 3,
        ("odm_handover_outage_seconds_sum", labels(type=SESSION.word)): 8.5,
        ("odm_handover_sockets_total", labels(type=SESSION.word, fate="moved")): 6,
        ("odm_addresses", labels(type="fixed", family="ipv6", state="ready")): 16,
        ("odm_prefixes", labels(type="fixed", family="ipv6", state="waiting")): 1,
        (
            "odm_requests_total",
            labels(type="session-lasting", family="ipv6", outcome="granted"),
        ): 3,
        ("odm_request_duration_seconds_bucket", labels(type=SESSION.word, le="0.5")): 1,
        ("odm_request_duration_seconds_bucket", labels(type=SESSION.word, le="1.0")): 1,
        ("odm_request_duration_seconds_bucket", labels(type=SESSION.word, le="+Inf")): 3,
        ("odm_request_duration_seconds_count", labels(type=SESSION.word)): 3,
        ("odm_request_duration_seconds_sum", labels(type=SESSION.word)): 9.5,
        ("odm_config_reloads_total", labels(result="ok")): 2,
        ("odm_config_reloads_total", labels(result="failed")): 1,
        ("odm_config_last_reload_success_timestamp_seconds", labels()): 1700000000.5,
        ("odm_alarms", labels()): 4,
    }
    assert {key: seen[key] for key in expected} == expected
    errors = {key: value for key, value in seen.items() if key not in expected}
    assert {name for name, _ in errors} == {"odm_collector_errors_total"}
    assert set(errors.values()) == {0}


GROUP_METRICS = {
    "info": {"odm_agent_info"},
    "verdicts": {"odm_verdicts_total"},
    "sockets": {"odm_sockets"},
    "caps": {"odm_cap_sockets", "odm_cap_requests_per_minute"},
    "losses": {"odm_lost_total", "odm_count_corrections_total"},
    "sent": {"odm_sent_bytes_total", "odm_sent_packets_total"},
    "lifetimes": {
        "odm_address_lifetime_left_seconds",
        "odm_address_lifetime_left_bytes",
        "odm_lingering_addresses",
        "odm_rotations_total",
    },
    "requests": {
        "odm_requests_total",
        "odm_request_duration_seconds_bucket",
        "odm_request_duration_seconds_count",
        "odm_request_duration_seconds_sum",
    },
    "network": {
        "odm_network_requests_total",
        "odm_network_dropped_total",
    },
    "handovers": {
        "odm_handovers_total",
        "odm_handover_outage_seconds_bucket",
        "odm_handover_outage_seconds_count",
        "odm_handover_outage_seconds_sum",
        "odm_handover_sockets_total",
    },
    "addresses": {"odm_addresses"},
    "prefixes": {"odm_prefixes"},
    "reloads": {
        "odm_config_reloads_total",
        "odm_config_last_reload_success_timestamp_seconds",
    },
    "alarms": {"odm_alarms"},
}


@pytest.mark.parametrize("fail", GROUP_METRICS)
def test_a_failing_reading_loses_only_its_own_metrics(
    fail: str, caplog: pytest.LogCaptureFixture
) -> None:
    with start("127.0.0.1:0", Made(fail)) as server:
        scrape(server.port)
        seen = scrape(server.port)
    assert seen["odm_collector_errors_total", labels(reading=fail)] == 2
    others = set().union(*(names for group, names in GROUP_METRICS.items() if group != fail))
    assert {name for name, _ in seen} == others | {"odm_collector_errors_total"}
    assert f"{fail} cannot be read" in caplog.text


@contextmanager
def connected(port: int, many: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            for _ in range(many)
        ]
        for each in held:
            each.sendall(said)
        yield held


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def within_10s(true: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + 10
    while not true() and time.monotonic() < give_up:
        time.sleep(0.02)
    return true()


@pytest.mark.parametrize("said", [b"", b"GET /m"], ids=["nothing", "half"])
def test_idle_connections_take_few_descriptors_and_keep_nobody_out(said: bytes) -> None:
    with start("127.0.0.1:0", Made()) as server:
        before = descriptors()
        with connected(server.port, 200, said):
            assert scrape(server.port)
            ours = descriptors() - before - 200
            assert ours <= MOST_CONNECTIONS
        scrape(server.port)


def test_the_oldest_idle_connection_makes_room() -> None:
    with (
        start("127.0.0.1:0", Made()) as server,
        connected(server.port, MOST_CONNECTIONS) as held,
    ):
        scrape(server.port)
        assert held[0].recv(1) == b""
        held[1].settimeout(0.1)
        with pytest.raises(TimeoutError):
            held[1].recv(1)


def test_who_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE_S", 0.2)
    with start("127.0.0.1:0", Made()) as server, connected(server.port, 1, b"GET /") as held:
        assert held[0].recv(1) == b""


def test_who_does_not_take_the_answer_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Long(Made):
        def class_names(self) -> Mapping[int, str]:
            return {1: "x" * (16 << 20)}

    monkeypatch.setattr(endpoint, "PATIENCE_S", 0.5)
    with start("127.0.0.1:0", Long()) as server:
        before = descriptors()
        with connected(server.port, 1, b"GET / HTTP/1.0\r\n\r\n") as held:
            assert within_10s(lambda: descriptors() == before + 2), "accepted"
            assert within_10s(lambda: descriptors() == before + 1), "given up"
            with suppress(ConnectionResetError):
                while held[0].recv(1 << 20):
                    pass


@pytest.mark.parametrize(
    "said",
    [
        b"\r\n\r\n",
        b"\xff\xff \xff\r\n\r\n",
        b"GET / HTTP/1.0\r\n" + b"x" * 9000,
        b"GET / HTTP/1.0\r\nAccept: application/openmetrics-text; version=x;q=y\r\n\r\n",
        b"GET /?name[]=%ff HTTP/1.0\r\n\r\n",
    ],
)
def test_nonsense_ends_its_connection_only(said: bytes) -> None:
    with start("127.0.0.1:0", Made()) as server:
        with connected(server.port, 1) as held, suppress(ConnectionError):
            held[0].sendall(said)
            held[0].shutdown(socket.SHUT_WR)
            while held[0].recv(65536):
                pass
        assert scrape(server.port)


def test_scrapes_without_end_leave_half_of_the_time() -> None:
    worked_s = 0.0

    class Slow(Made):
        def info(self) -> Info:
            nonlocal worked_s
            time.sleep(0.02)
            worked_s += 0.02
            return super().info()

    with start("127.0.0.1:0", Slow()) as server:
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: scrape(server.port), range(20)))
        assert worked_s <= 0.6 * (time.monotonic() - began)


def test_without_a_descriptor_it_waits_for_one() -> None:
    """The process has none left for a moment: the caller waits in the kernel's queue."""
    with start("127.0.0.1:0", Made()) as server:
        scrape(server.port)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with connected(server.port, 0), socket.socket() as caller:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            try:
                caller.connect(("127.0.0.1", server.port))
                caller.sendall(b"GET / HTTP/1.0\r\n\r\n")
                time.sleep(0.2)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            caller.settimeout(5)
            assert caller.recv(100).startswith(b"HTTP/1.0 200")


def test_nothing_wakes_it_between_scrapes() -> None:
    with start("127.0.0.1:0", Made()) as server:
        scrape(server.port)
        (thread,) = (each for each in threading.enumerate() if each.name == "metrics")
        status = Path(f"/proc/self/task/{thread.native_id}/status")
        time.sleep(0.2)
        before = status.read_text()
        time.sleep(1.2)
        assert _switches(status.read_text()) == _switches(before)


def _switches(status: str) -> list[str]:
    return [line for line in status.splitlines() if line.startswith("voluntary_ctxt")]


def test_closing_frees_the_port() -> None:
    with start("127.0.0.1:0", Made()) as server:
        port = server.port
    start(f"127.0.0.1:{port}", Made()).close()


def test_a_port_in_use_is_said_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MetricsError, match=r"in use; choose another agent\.metrics"):
            start(f"127.0.0.1:{port}", Made())


def test_addresses_of_both_families_are_understood() -> None:
    assert split_address("127.0.0.1:9653") == ("127.0.0.1", 9653)
    assert split_address("[::1]:9653") == ("::1", 9653)


@pytest.mark.parametrize("bad", ["", "9653", ":9653", "127.0.0.1", "127.0.0.1:x", "[::1]:70000"])
def test_what_is_no_address_is_refused(bad: str) -> None:
    with pytest.raises(MetricsError, match=r"write agent\.metrics as"):
        split_address(bad)


def test_the_made_up_readings_are_readings() -> None:
    readings: Readings = Made()
    assert readings.alarms() == 4
