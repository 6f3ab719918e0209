"""Who waits for an address."""

from dataclasses import dataclass

from odm_agent.core.grants import Want


@dataclass(frozen=True, slots=True)
class Demand:
    """Somebody waits until `until_s` (boot-time seconds), and is answered by the `ticket`.

    `want` None: for all addresses that there should be, as the start and each reload do.
    """

    ticket: int
    want: Want | None
    until_s: float
