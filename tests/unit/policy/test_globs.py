import pytest

from odm_agent.core.model import ClassPolicy
from odm_agent.policy.globs import class_of, match, nearest_class_of


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("a/b", "a/b", True),
        ("/a/b/", "a/b", True),
        ("a", "a/b", False),
        ("a/*", "a/b", True),
        ("*", "a/b", False),
        ("a/*/c", "a/b/c", True),
        ("user-*.slice", "user-1000.slice", True),
        ("a/[bc]", "a/c", True),
        ("A", "a", False),
        (r"x\x2dy.service", r"x\x2dy.service", True),
        (r"x\x2d*.service", r"x\x2dy.service", True),
        ("/", "/", True),
        ("/", "a", False),
    ],
)
def test_a_wildcard_stays_within_its_component(pattern: str, path: str, fits: bool) -> None:
    assert match(pattern, path) is fits


GLOB = ClassPolicy(1, "glob", cgroups=("app/*",))
LATER = ClassPolicy(2, "later", cgroups=("app/w*",))
EXACT = ClassPolicy(3, "exact", cgroups=("app/web",))
ALL = (GLOB, LATER, EXACT)


def test_an_exact_path_beats_globs_and_of_globs_the_first_counts() -> None:
    assert class_of("app/web", ALL) == EXACT
    assert class_of("app/www", ALL) == GLOB
    assert class_of("app", ALL) is None
    assert class_of("app/web/worker", ALL) is None


def test_children_belong_to_the_nearest_ancestor_with_a_class() -> None:
    assert nearest_class_of("app/web/worker/1", ALL) == EXACT
    assert nearest_class_of("app/x/y", ALL) == GLOB
    assert nearest_class_of("other/x", ALL) is None
    everything = ClassPolicy(4, "everything", cgroups=("/",))
    assert nearest_class_of("other/x", [*ALL, everything]) == everything
