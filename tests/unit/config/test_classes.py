from odm_agent.config.classes import class_policies
from odm_agent.config.schema import ClassConfig, Config, UnclassifiedConfig
from odm_agent.core.model import AddressType, ClassPolicy, Mode

IDS = {"ssh": 7, "bulk": 3}


def test_classes_become_policies_with_their_ids() -> None:
    config = Config(
        unclassified=UnclassifiedConfig(mode="audit"),
        classes={
            "ssh": ClassConfig(
                cgroups=["a/b"],
                allow=["fixed", "nonpersistent"],
                default="fixed",
                mode="audit",
                strict=True,
                delegated=True,
            )
        },
    )
    assert class_policies(config, IDS.__getitem__) == {
        0: ClassPolicy(0, "unclassified", mode=Mode.AUDIT),
        7: ClassPolicy(
            id=7,
            name="ssh",
            allow=frozenset({AddressType.FIXED, AddressType.NONPERSISTENT}),
            default=AddressType.FIXED,
            mode=Mode.AUDIT,
            strict=True,
            fail_closed=True,
            cgroups=("a/b",),
            delegated=True,
        ),
    }


def test_who_may_use_costly_addresses_fails_closed_unless_told_otherwise() -> None:
    def fail_closed(section: ClassConfig) -> bool:
        return class_policies(Config(classes={"bulk": section}), IDS.__getitem__)[3].fail_closed

    assert fail_closed(ClassConfig(allow=["session-lasting"]))
    assert not fail_closed(ClassConfig(allow=["nonpersistent", "graceful-replacement"]))
    assert not fail_closed(ClassConfig(allow=["fixed"], on_failure="open"))
    assert fail_closed(ClassConfig(on_failure="closed"))
