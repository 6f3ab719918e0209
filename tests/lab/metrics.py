"""Reading a scrape."""

from odm_agent.model import AddressType
from tests.lab.world import World


def verdicts(
    world: World, name: str, *, verdict: str = "refuse", type: AddressType = AddressType.FIXED
) -> float:
    """The sum of odm_verdicts_total over reasons and hooks, from a real scrape."""
    wanted = {f'class="{name}"', f'verdict="{verdict}"', f'type="{type.word}"'}
    total = 0.0
    for line in world.agent.metrics().splitlines():
        if line.startswith("odm_verdicts_total{"):
            labels, _, value = line.partition("{")[2].rpartition("} ")
            total += float(value) if wanted <= set(labels.split(",")) else 0
    return total
