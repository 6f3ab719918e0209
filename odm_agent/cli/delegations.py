"""How delegations stand, in words."""

from collections.abc import Iterator

from odm_agent.control.answers import DelegatedView, DelegationView
from odm_agent.text import duration_words


def delegation_words(view: DelegationView) -> Iterator[str]:
    """A line for each type and prefix, as `odm-agent status` has them."""
    if not view.linked:
        why = view.trouble or "it is down, or has no link-local address that is ready"
        yield f"{view.name}: not asked on {view.interface}: {why}"
    for each in view.types:
        yield f"{view.name}/{each.type}: {_state_words(each)}"


def _state_words(view: DelegatedView) -> str:
    words: list[str] = [view.state]
    if view.asked_for_seconds is not None:
        words[0] += f" for {duration_words(view.asked_for_seconds)}"
    if view.prefix is not None:
        words.append(f"{view.prefix} {_lifetime_words(view)}")
    if view.server is not None:
        by = f" by {view.router}" if view.router else ""
        words.append(f"from server {view.server}{by}")
    if view.trouble:
        words.append(f"LAST: {view.trouble}")
    return ", ".join(words)


def _lifetime_words(view: DelegatedView) -> str:
    lefts = (
        ("preferred", view.preferred_seconds_left),
        ("valid", view.valid_seconds_left),
    )
    said = (
        f"{what} without end" if left is None else f"{what} for {duration_words(left)}"
        for what, left in lefts
    )
    return f"({', '.join(said)})"
