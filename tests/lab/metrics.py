"""Reading a scrape."""

from collections.abc import Iterator

from odm_agent.core.model import AddressType
from tests.lab.agent import Agent
from tests.lab.world import World


def verdicts(
    world: World, name: str, *, verdict: str = "refuse", type: AddressType = AddressType.FIXED
) -> float:
    """The sum of odm_verdicts_total over reasons and hooks, from a real scrape."""
    wanted = {"class": name, "verdict": verdict, "type": type.word}.items()
    return sum(count for labels, count in counts(world) if wanted <= labels.items())


def counts(world: World) -> Iterator[tuple[dict[str, str], float]]:
    """Labels and value of each odm_verdicts_total, from a real scrape."""
    yield from samples(world.agent, "odm_verdicts_total")


def samples(agent: Agent, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Labels and value of each sample of a name, from a real scrape."""
    for line in agent.metrics().splitlines():
        if line.startswith(f"{name}{{"):
            labels, _, value = line.partition("{")[2].rpartition("} ")
            pairs = (each.split("=") for each in labels.split(","))
            yield {key: word.strip('"') for key, word in pairs}, float(value)
