"""Which of the prefixes that wander together stands first now, and for how long."""

from dataclasses import dataclass

from odm_agent.agent.engine import Engine
from odm_agent.core.wandering import Wanderers, begins_s, groups
from odm_agent.prefixes.table import Row


@dataclass(frozen=True, slots=True)
class Standing:
    """Prefixes that wander together. `rows` are those that can serve, in their order now."""

    wanderers: Wanderers
    rows: tuple[Row, ...]
    #: When another one is to stand first (boot-time seconds).
    until_s: float

    @property
    def first(self) -> Row | None:
        """The one of which new sockets get an address; None: none can serve."""
        return self.rows[0] if self.rows else None

    def is_first(self, row: Row) -> bool:
        """Whether this is it, or was in the table of a moment ago."""
        return self.first is not None and self.first.prefix.id == row.prefix.id


def standings(engine: Engine) -> dict[Wanderers, Standing]:
    """All prefixes that wander, as hooks have them in order."""
    rows = {row.prefix.id: row for row in engine.table}
    found: dict[Wanderers, Standing] = {}
    for wanderers, prefixes in groups(row.prefix for row in rows.values()).items():
        chosen = engine.datapath.choices().get((wanderers.type, wanderers.family), ())
        ids = {prefix.id for prefix in prefixes}
        found[wanderers] = Standing(
            wanderers,
            tuple(rows[prefix_id] for prefix_id in chosen if prefix_id in ids),
            begins_s(wanderers, prefixes[0].period + 1),
        )
    return found
