"""What networks have answered: counted, logged, and told as events."""

import logging
from collections import Counter
from typing import Final

from odm_agent.agent.event_log import EventLog
from odm_agent.control.answers import Happened
from odm_agent.core.model import AddressType
from odm_agent.sources.base import Noted, Outcome

log = logging.getLogger(__name__)

#: A renewal is no news.
_TOLD: Final[dict[Outcome, Happened]] = {
    Outcome.GRANTED: "granted",
    Outcome.WITHDRAWN: "withdrawn",
    Outcome.RELEASED: "returned",
    Outcome.FAILED: "failed",
}


class NetworkNotes:
    """Since the agent started."""

    def __init__(self) -> None:
        """Nothing yet."""
        #: By type and what became of it: `granted`, `renewed`, `withdrawn`, `released`, or why it
        #: failed.
        self.outcomes: Counter[tuple[AddressType, str]] = Counter()

    def note(self, source: str, noted: Noted, events: EventLog, wall_s: float) -> None:
        """It has happened."""
        outcome = (noted.failure or noted.outcome).value
        self.outcomes[noted.type, outcome] += 1
        name = f"{source.partition(':')[2]}/{noted.type.word}"
        network = str(noted.network) if noted.network is not None else None
        said = {"prefix": name, "network": network, "cause": noted.cause, "took_s": noted.took_s}
        failed = noted.outcome in (Outcome.FAILED, Outcome.WITHDRAWN)
        level = logging.WARNING if failed else logging.INFO
        if noted.outcome is Outcome.RENEWED:
            level = logging.DEBUG
        facts = {key: value for key, value in said.items() if value not in (None, "")}
        log.log(level, "a prefix: %s", outcome, extra=facts)
        if noted.asked:  # the book of requests tells it
            return
        if (event := _TOLD.get(noted.outcome)) is not None:
            events.note(
                event,
                wall_s,
                prefix=name,
                type=noted.type.word,
                address=network,
                detail=noted.cause or None,
            )
