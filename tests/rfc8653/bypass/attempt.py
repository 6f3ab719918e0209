"""One attempt by one class: what the application was told, who refused, what was on the wire."""

from dataclasses import dataclass
from typing import Final

from odm_agent.core.model import AddressType
from tests.lab.world import PLAIN, World
from tests.rfc8653.bypass.technique import ABSENT, Form, Result, Stage, Technique
from tests.rfc8653.bypass.wire import Verdicts, kernels_word, watched

#: The class that may use every address: where a technique must work.
PERMITTED: Final = "every"


@dataclass(frozen=True)
class Attempt:
    """What came of it."""

    told: str
    refusals: tuple[tuple[str, str], ...]
    typed: frozenset[AddressType]
    untyped: bool
    allowed: frozenset[AddressType]
    others: str = ""
    kernels: frozenset[str] = frozenset()

    @property
    def forbidden(self) -> frozenset[AddressType]:
        """Types on the wire that the class may not use."""
        if self.others and self.told != "ok":
            return frozenset()
        return self.typed - self.allowed

    @property
    def hook(self) -> str:
        """The hooks that refused."""
        return ", ".join(sorted({hook for hook, _ in self.refusals}))

    @property
    def result(self) -> Result:
        """In one word; the worst that is true of it."""
        if self.forbidden:
            return Result.OPEN
        if self.told == ABSENT:
            return Result.ABSENT
        if self.kernels:
            return Result.KERNELS
        if self.refusals:
            return Result.STOPPED
        if self.untyped or self.typed:
            return Result.UNTYPED
        return Result.NOTHING if self.told == "ok" else Result.KERNEL

    @property
    def wire(self) -> str:
        """What the gateways saw, in words."""
        if self.others:
            return self.others
        if self.kernels:
            return ", ".join(sorted(self.kernels))
        words = [type.word for type in sorted(self.typed)] + ["untyped"] * self.untyped
        return ", ".join(words) or "nothing"


def attempt(world: World, technique: Technique, form: Form, name: str) -> Attempt:
    """Let class `name` try it."""
    stage = Stage.of(world, name, form, technique.needs)
    verdicts = Verdicts(world, name)
    with watched(world) as seen:
        told = technique.act(stage)
        open_ = technique.expected(form).result is Result.OPEN
        (seen.wait_for_typed if open_ else seen.look)()
    return Attempt(
        told,
        tuple(verdicts.refusals()),
        frozenset(seen.typed),
        seen.untyped,
        frozenset() if name == PLAIN else frozenset(world.agent.settings.classes[name].allow),
        technique.others,
        frozenset(map(kernels_word, seen.kernels)) if technique.kernels else frozenset(),
    )


def works(world: World, technique: Technique, form: Form) -> bool | None:
    """Whether the typed address gets onto the wire where it is allowed; None: the kernel lacks it.

    After another type (`control`) than the attempts, so that ends of these connections fool nobody.
    """
    stage = Stage.of(world, PERMITTED, form, technique.needs, technique.control)
    with watched(world) as seen:
        told = technique.act(stage)
        if told != ABSENT:
            seen.wait_for_typed(kernels=technique.kernels)
    if told == ABSENT:
        return None
    return bool(seen.typed or (technique.kernels and seen.kernels))
