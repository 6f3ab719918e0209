"""What the shell completes: names that the agent knows, quickly or not at all."""

from typing import Any, TypeVar

from odm_agent.cli.where import locate
from odm_agent.control.answers import ClassView, LeaseView
from odm_agent.control.client import ControlClient
from odm_agent.core.errors import OdmError
from odm_agent.core.model import TYPES

T = TypeVar("T")

#: Seconds that a key press may wait for the agent.
TIMEOUT_S = 0.5


def types(incomplete: str) -> list[str]:
    """Address types."""
    return [type_.word for type_ in TYPES if type_.word.startswith(incomplete)]


def classes(ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    """Class names with what they may use, from the running agent."""
    found = _asked(ctx, "classes", list[ClassView])
    return [
        (view.name, f"allow: {', '.join(view.allow) or 'nothing'}")
        for view in found
        if view.name.startswith(incomplete)
    ]


def rotating(ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    """What `rotate` takes: types, prefixes and addresses that end, from the running agent."""
    found = _asked(ctx, "lifetimes", list[LeaseView])
    current = [view for view in found if view.phase == "current"]
    words = {view.type: "all of the type" for view in current}
    words |= {view.prefix: f"all of the prefix, {view.type}" for view in current}
    words |= {view.address: f"of {view.prefix}" for view in current}
    return [(word, help_) for word, help_ in words.items() if word.startswith(incomplete)]


def _asked(ctx: Any, verb: str, kind: type[list[T]]) -> list[T]:
    """What the running agent answers; nothing if it does not, or not at once."""
    where = locate(ctx.params.get("config"), ctx.params.get("socket"))
    try:
        with ControlClient(where.socket, timeout_s=TIMEOUT_S) as client:
            return client.ask(verb, kind)
    except OdmError:
        return []
