"""What is done to the agent: killed at any moment, restarted, reloaded, also with broken files."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.lab.agent import Agent
from tests.lab.world import World
from tests.soak.classes import SETTINGS, variants

_BROKEN = '[classes.broken]\nallow = ["sesion-lasting"]\n'


@dataclass
class Turmoil:
    """Each `round` is some seconds of the agent's life, drawn by lot."""

    world: World
    draw: random.Random
    done: Counter[str] = field(default_factory=Counter)
    ready_s: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def round(self) -> None:
        """Kill and restart the agent, or make it reload."""
        if self.draw.random() < 0.6:
            self._kill()
        else:
            self._reload()

    def settle(self) -> None:
        """The configuration of the start again, in force."""
        agent = self.world.agent
        agent.configure(SETTINGS)
        if agent.reload().returncode:
            self.violations.append("the last reload was refused")

    def _kill(self) -> None:
        agent: Agent = self.world.agent
        agent.sigkill()
        self.done["killed"] += 1
        time.sleep(self.draw.choice((0.0, 0.0, 0.5, 2.0)))
        if self.draw.random() < 0.3:  # in the midst of its start
            agent.launch()
            time.sleep(self.draw.uniform(0.05, 0.8))
            agent.sigkill()
            self.done["killed while it started"] += 1
        began = time.monotonic()
        agent.start()
        self.ready_s.append(time.monotonic() - began)

    def _reload(self) -> None:
        agent = self.world.agent
        if self.draw.random() < 0.2:
            with agent.config.open("a") as file:
                file.write(_BROKEN)
            if agent.reload().returncode != 4:
                self.violations.append("a broken configuration was taken")
            self.done["broken reloads refused"] += 1
        agent.configure(self.draw.choice(variants()))
        done = agent.reload()
        if done.returncode:
            self.violations.append(f"a good configuration was refused: {done.stderr}")
        self.done["reloaded"] += 1
