"""How far the patterns of classes fit a cgroup's path, component by component (pure)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Self

from odm_agent.core.model import ClassPolicy
from odm_agent.policy.globs import is_glob, parts_of


@dataclass(frozen=True, slots=True)
class Lead:
    """A pattern of a class, and which of its components are still to be matched.

    `order` is its place among all patterns. `policy` None: the scopes of `odm-agent exec`.
    """

    pattern: str
    policy: ClassPolicy | None
    order: int
    left: tuple[str, ...]

    def below(self) -> "Lead":
        """The lead with one component less."""
        return Lead(self.pattern, self.policy, self.order, self.left[1:])

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Which pattern counts first: scopes, exact paths, then the order."""
        return self.policy is not None, is_glob(self.pattern), self.order


@dataclass(slots=True)
class Leads:
    """What fits a path: `ended` patterns name that very cgroup, the others lead below it."""

    ended: tuple[Lead, ...] = ()
    _exact: dict[str, list[Lead]] = field(default_factory=dict)
    _globs: list[Lead] = field(default_factory=list)

    @classmethod
    def of(cls, policies: Iterable[ClassPolicy], scopes: str) -> Self:
        """Where the patterns of these classes start; `scopes` is the pattern of `exec`'s."""
        named: list[tuple[ClassPolicy | None, str]] = [(None, scopes)]
        named += [(policy, pattern) for policy in policies for pattern in policy.cgroups]
        return cls._made(
            Lead(pattern, policy, order, parts_of(pattern))
            for order, (policy, pattern) in enumerate(named)
            if parts_of(pattern)
        )

    @classmethod
    def _made(cls, leads: Iterable[Lead]) -> Self:
        made = cls()
        ended = []
        for lead in leads:
            if not lead.left:
                ended.append(lead)
            elif is_glob(lead.left[0]):
                made._globs.append(lead)
            else:
                made._exact.setdefault(lead.left[0], []).append(lead)
        made.ended = tuple(sorted(ended, key=lambda lead: lead.rank))
        return made

    def below(self, name: str) -> "Leads | None":
        """What fits the cgroup of that name one level below; None: nothing does."""
        fitting = list(self._fitting(name))
        return self._made(fitting) if fitting else None

    def _fitting(self, name: str) -> Iterator[Lead]:
        for lead in self._exact.get(name, ()):
            yield lead.below()
        for lead in self._globs:
            if fnmatchcase(name, lead.left[0]):
                yield lead.below()

    @property
    def lead_on(self) -> bool:
        """Whether patterns may name cgroups below."""
        return bool(self._exact or self._globs)
