"""Which class a cgroup belongs to by its path."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from odm_agent.core.model import ClassPolicy

_WILD = frozenset("*?[")


def parts_of(path: str) -> tuple[str, ...]:
    """The components of a cgroup path or pattern; the attach point itself has none."""
    return tuple(part for part in path.split("/") if part)


def is_glob(pattern: str) -> bool:
    """Whether a pattern holds any of `*`, `?` and `[`."""
    return not _WILD.isdisjoint(pattern)


def match(pattern: str, path: str) -> bool:
    """Whether the whole of `path` fits `pattern`; wildcards stay within one component."""
    patterns, parts = parts_of(pattern), parts_of(path)
    return len(patterns) == len(parts) and all(
        fnmatchcase(part, each) if is_glob(each) else part == each
        for part, each in zip(parts, patterns, strict=True)
    )


def class_of(path: str, policies: Iterable[ClassPolicy]) -> ClassPolicy | None:
    """The class that names this very cgroup: an exact path before a glob, then the first one."""
    globbed: ClassPolicy | None = None
    for policy in policies:
        for pattern in policy.cgroups:
            if not match(pattern, path):
                continue
            if not is_glob(pattern):
                return policy
            globbed = globbed or policy
    return globbed


def nearest_class_of(path: str, policies: Iterable[ClassPolicy]) -> ClassPolicy | None:
    """The class of a cgroup: its own, else that of the nearest ancestor which has one."""
    candidates = list(policies)
    parts = parts_of(path)
    for end in range(len(parts), -1, -1):
        if found := class_of("/".join(parts[:end]), candidates):
            return found
    return None
