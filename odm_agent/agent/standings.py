"""Which of the prefixes that wander together stands first now, and for how long."""

from dataclasses import dataclass

from odm_agent.agent.engine import Engine
from odm_agent.core.wandering import Wanderers, begins_s, wanderers_of
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
    found: dict[Wanderers, list[Row]] = {}
    for row in engine.table:
        if (wanderers := wanderers_of(row.prefix)) is not None:
            found.setdefault(wanderers, []).append(row)
    return {each: _standing(engine, each, rows) for each, rows in found.items()}


def _standing(engine: Engine, wanderers: Wanderers, rows: list[Row]) -> Standing:
    chosen = engine.datapath.choices().get((wanderers.type, wanderers.family), ())
    by_id = {row.prefix.id: row for row in rows}
    return Standing(
        wanderers,
        tuple(by_id[prefix_id] for prefix_id in chosen if prefix_id in by_id),
        begins_s(wanderers, rows[0].prefix.period + 1),
    )
