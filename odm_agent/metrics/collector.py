"""The one collector. A new metric is a function that reads, and its line in GROUPS."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from math import inf, isinf
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from odm_agent.core.model import AddressType, Family
from odm_agent.core.outages import BUCKETS_S
from odm_agent.metrics.readings import Readings

log = logging.getLogger(__name__)

UNCLASSIFIED: Final = "unclassified"

Group = Callable[[Readings], Iterable[Metric]]


def class_label(names: Mapping[int, str], class_id: int) -> str:
    """A class's name; a class that left the configuration keeps its counters under its number."""
    if class_id == 0:
        return UNCLASSIFIED
    return names.get(class_id, f"class-{class_id}")


def _family(family: Family) -> str:
    return family.name.lower()


def agent_info(readings: Readings) -> Iterable[Metric]:
    """odm_agent_info."""
    info = readings.info()
    metric = GaugeMetricFamily(
        "odm_agent_info",
        "Always 1: the running agent's version and the ABI of its eBPF maps.",
        labels=["version", "abi"],
    )
    metric.add_metric([info.version, str(info.abi)], 1)
    yield metric


def verdicts(readings: Readings) -> Iterable[Metric]:
    """odm_verdicts_total. Counts whose labels read the same (classes of one name) are added up."""
    names = readings.class_names()
    counts: Counter[tuple[str, ...]] = Counter()
    for key, count in readings.verdicts():
        name = class_label(names, key.class_id)
        counts[name, key.type.word, key.verdict, key.reason, key.hook] += count
    metric = CounterMetricFamily(
        "odm_verdicts",
        "Decisions of the eBPF programs by application class, address type, verdict, reason and "
        "hook; they survive a restart of the agent.",
        labels=["class", "type", "verdict", "reason", "hook"],
    )
    for labels, count in sorted(counts.items()):
        metric.add_metric(labels, count)
    yield metric


def sockets(readings: Readings) -> Iterable[Metric]:
    """odm_sockets."""
    names = readings.class_names()
    metric = GaugeMetricFamily(
        "odm_sockets",
        "Live sockets by application class, address type and family. counted=kernel: sockets that "
        "asked for a type themselves or whose class has caps, and hold a typed address; exact. "
        "counted=sock_diag: all others, as listed at scrape (bound-only TCP and UDP without a port "
        "are not listed).",
        labels=["class", "type", "family", "counted"],
    )
    for counted, counts in (("kernel", readings.tracked()), ("sock_diag", readings.sockets())):
        for (class_id, type_, family), count in sorted(counts.items()):
            labels = [class_label(names, class_id), type_.word, _family(family), counted]
            metric.add_metric(labels, count)
    yield metric


def caps(readings: Readings) -> Iterable[Metric]:
    """odm_cap_sockets and odm_cap_requests_per_minute."""
    names = readings.class_names()
    live = GaugeMetricFamily(
        "odm_cap_sockets",
        "How many live sockets with an address of the type a class may have at most.",
        labels=["class", "type"],
    )
    requests = GaugeMetricFamily(
        "odm_cap_requests_per_minute",
        "How often in a minute sockets of a class may get an address of the type.",
        labels=["class", "type"],
    )
    for class_id, cap in sorted(readings.caps(), key=lambda each: (each[0], each[1].type)):
        labels = [class_label(names, class_id), cap.type.word]
        if cap.sockets:
            live.add_metric(labels, cap.sockets)
        if cap.requests_per_minute:
            requests.add_metric(labels, cap.requests_per_minute)
    yield live
    yield requests


def losses(readings: Readings) -> Iterable[Metric]:
    """odm_lost_total and odm_count_corrections_total."""
    metric = CounterMetricFamily(
        "odm_lost",
        "What the eBPF programs could not note, as memory or a map was full: a verdict that stood "
        "but was not counted, a socket that is not tracked, a socket that is not counted by its "
        "address, a new cgroup that waits for the agent to be classified, an event that the agent "
        "then finds out by looking.",
        labels=["what"],
    )
    for what, count in sorted(readings.losses().items()):
        metric.add_metric([what], count)
    yield metric
    yield CounterMetricFamily(
        "odm_count_corrections",
        "Counts of sockets that were found to be wrong, and put right, since the agent started.",
        value=readings.corrections(),
    )


def sent(readings: Readings) -> Iterable[Metric]:
    """odm_sent_bytes_total and odm_sent_packets_total."""
    names = readings.class_names()
    bytes_ = CounterMetricFamily(
        "odm_sent_bytes",
        "IP bytes that sockets of a class have sent from addresses of a type, headers included, "
        "after segmentation; not over lo.",
        labels=["class", "type"],
    )
    packets = CounterMetricFamily(
        "odm_sent_packets",
        "The packets of odm_sent_bytes_total; one that is cut into segments later counts once.",
        labels=["class", "type"],
    )
    for (class_id, type_), (count, packet_count) in sorted(readings.sent().items()):
        labels = [class_label(names, class_id), type_.word]
        bytes_.add_metric(labels, count)
        packets.add_metric(labels, packet_count)
    yield bytes_
    yield packets


def lifetimes(readings: Readings) -> Iterable[Metric]:
    """What is left of current addresses, how many linger, and how often they rotated."""
    seconds = GaugeMetricFamily(
        "odm_address_lifetime_left_seconds",
        "Until a current address of the prefix is given to no socket any more, or rotates.",
        labels=["prefix", "type"],
    )
    bytes_ = GaugeMetricFamily(
        "odm_address_lifetime_left_bytes",
        "What is left of the budget of a current address of the prefix.",
        labels=["prefix", "type"],
    )
    lingering = GaugeMetricFamily(
        "odm_lingering_addresses",
        "Former addresses of the prefix that stay for the sockets that have them.",
        labels=["prefix", "type"],
    )
    for each in readings.lifetimes():
        labels = [each.prefix, each.type.word]
        if each.seconds_left is not None:
            seconds.add_metric(labels, each.seconds_left)
        if each.bytes_left is not None:
            bytes_.add_metric(labels, each.bytes_left)
        lingering.add_metric(labels, each.lingering)
    rotations = CounterMetricFamily(
        "odm_rotations",
        "How often an address of the prefix took another one's place since the agent started, by "
        "cause: its time or budget was over, it was asked for, or the configuration names another "
        "network.",
        labels=["prefix", "type", "cause"],
    )
    for (prefix, type_, cause), count in readings.rotations().items():
        rotations.add_metric([prefix, type_.word, cause.value], count)
    yield from (seconds, bytes_, lingering, rotations)


def requests(readings: Readings) -> Iterable[Metric]:
    """odm_requests_total and odm_request_duration_seconds."""
    outcomes = CounterMetricFamily(
        "odm_requests",
        "Prefixes that were requested of the network, or of whatever gives them, since the agent "
        "started, by outcome: granted, refused, timed-out, unsupported, or released, as nobody "
        "wanted it any more.",
        labels=["type", "family", "outcome"],
    )
    for (type_, family, outcome), count in sorted(readings.requests().items()):
        outcomes.add_metric([type_.word, _family(family), outcome], count)
    duration = HistogramMetricFamily(
        "odm_request_duration_seconds",
        "From a request until something came of it; those that were released are left out.",
        labels=["type"],
    )
    for type_, (buckets, sum_s) in sorted(readings.request_latency().items()):
        duration.add_metric([type_.word], _cumulated(buckets), sum_s)
    yield outcomes
    yield duration


def _cumulated(buckets: Iterable[tuple[float, int]]) -> list[tuple[str, float]]:
    below, cumulated = 0, list[tuple[str, float]]()
    for bound, count in buckets:
        below += count
        cumulated.append(("+Inf" if isinf(bound) else str(bound), below))
    return cumulated


def handovers(readings: Readings) -> Iterable[Metric]:
    """odm_handovers_total, odm_handover_outage_seconds and odm_handover_sockets_total."""
    tally = readings.handovers()
    outcomes = CounterMetricFamily(
        "odm_handovers",
        "Handovers since the host booted, each IP version by itself: the prefix of which new "
        "sockets got addresses of a type could not serve any more, and then: kept, it serves by "
        "another interface or gateway; replaced, another one does; returned, it serves as before, "
        "since its link was lost for a while alone; given-up, nothing of the type was held or came "
        "for a minute.",
        labels=["type", "outcome"],
    )
    for (type_, outcome), count in sorted(tally.outcomes.items(), key=_by_labels):
        outcomes.add_metric([type_.word, outcome.value], count)
    outages = HistogramMetricFamily(
        "odm_handover_outage_seconds",
        "How long new sockets got no address of a type that works: from when the agent saw that "
        "its prefix can't serve any more until one serves; through restarts of the agent. Those "
        "that were given up are left out.",
        labels=["type"],
    )
    for type_, counts in sorted(tally.outages.items()):
        buckets = zip((*BUCKETS_S, inf), counts, strict=True)
        outages.add_metric([type_.word], _cumulated(buckets), tally.sums_s[type_])
    sockets = CounterMetricFamily(
        "odm_handover_sockets",
        "What handovers made of sockets, since the host booted: moved, their prefix was kept and "
        "they go on by another interface or gateway; ended by the agent, as their class wants it; "
        "lost, their address was over and nobody ended them.",
        labels=["type", "fate"],
    )
    for (type_, fate), count in sorted(tally.sockets.items(), key=_by_labels):
        sockets.add_metric([type_.word, fate.value], count)
    yield from (outcomes, outages, sockets)


def _by_labels(counted: tuple[tuple[AddressType, Enum], int]) -> tuple[AddressType, str]:
    (type_, word), _ = counted
    return type_, word.value


def network(readings: Readings) -> Iterable[Metric]:
    """odm_network_requests_total and odm_network_dropped_total."""
    requests = CounterMetricFamily(
        "odm_network_requests",
        "Prefixes that networks were asked for since the agent started, by type and outcome: "
        "granted, unsupported, refused or timed-out; and what became of granted ones: renewed, "
        "withdrawn (by the network, or over), released (given back).",
        labels=["type", "outcome"],
    )
    for (type_, outcome), count in sorted(readings.network_requests().items()):
        requests.add_metric([type_.word, outcome], count)
    yield requests
    drops = CounterMetricFamily(
        "odm_network_dropped",
        "Datagrams from DHCP servers that were thrown away unread (too-many, too-large, "
        "not-from-a-server of the link), and such to them that could not be sent (not-sent).",
        labels=["reason"],
    )
    for reason, count in sorted(readings.network_drops().items()):
        drops.add_metric([reason], count)
    yield drops


def _by_state(
    name: str, help_: str, counts: Mapping[tuple[AddressType, Family, str], int]
) -> Iterator[Metric]:
    metric = GaugeMetricFamily(name, help_, labels=["type", "family", "state"])
    for (type_, family, state), count in sorted(counts.items()):
        metric.add_metric([type_.word, _family(family), state], count)
    yield metric


def addresses(readings: Readings) -> Iterable[Metric]:
    """odm_addresses."""
    help_ = "Typed addresses by type, family and state."
    return _by_state("odm_addresses", help_, readings.addresses())


def prefixes(readings: Readings) -> Iterable[Metric]:
    """odm_prefixes."""
    help_ = "Typed prefixes by type, family and state."
    return _by_state("odm_prefixes", help_, readings.prefixes())


def reloads(readings: Readings) -> Iterable[Metric]:
    """odm_config_reloads_total and odm_config_last_reload_success_timestamp_seconds."""
    seen = readings.reloads()
    metric = CounterMetricFamily(
        "odm_config_reloads",
        "Times the configuration was loaded since the agent started, by result.",
        labels=["result"],
    )
    metric.add_metric(["ok"], seen.ok)
    metric.add_metric(["failed"], seen.failed)
    yield metric
    yield GaugeMetricFamily(
        "odm_config_last_reload_success_timestamp_seconds",
        "When the configuration in force was loaded, in Unix seconds.",
        value=seen.last_success,
    )


def alarms(readings: Readings) -> Iterable[Metric]:
    """odm_alarms."""
    yield GaugeMetricFamily(
        "odm_alarms",
        "Conditions that need a person now; `odm-agent status` lists them.",
        value=readings.alarms(),
    )


#: The name of a group is the `reading` label of its errors.
GROUPS: Final[Mapping[str, Group]] = {
    "info": agent_info,
    "verdicts": verdicts,
    "sockets": sockets,
    "caps": caps,
    "losses": losses,
    "sent": sent,
    "lifetimes": lifetimes,
    "requests": requests,
    "network": network,
    "handovers": handovers,
    "addresses": addresses,
    "prefixes": prefixes,
    "reloads": reloads,
    "alarms": alarms,
}


class OdmCollector(Collector):
    """Reads everything afresh at each scrape and keeps nothing but its own error counts."""

    def __init__(self, readings: Readings, groups: Mapping[str, Group] = GROUPS) -> None:
        self._readings = readings
        self._groups = groups
        self._errors = dict.fromkeys(groups, 0)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would otherwise scrape once just to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All groups; one that fails is left out, counted and logged."""
        for name in self._groups:
            yield from self._read(name)
        yield self._error_counts()

    def _read(self, name: str) -> list[Metric]:
        try:
            return list(self._groups[name](self._readings))
        except Exception:
            self._errors[name] += 1
            log.warning("metric could not be read", extra={"reading": name}, exc_info=True)
            return []

    def _error_counts(self) -> Metric:
        metric = CounterMetricFamily(
            "odm_collector_errors",
            "Readings that failed at a scrape, by reading; their metrics were left out.",
            labels=["reading"],
        )
        for name, count in self._errors.items():
            metric.add_metric([name], count)
        return metric
