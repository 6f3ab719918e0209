"""The mixed classes of the soak, and what each of their sockets may expect."""

from dataclasses import replace
from typing import Final

from odm_agent.core.model import TYPES, AddressType
from tests.lab.agent import LabClass, Settings
from tests.lab.host import FIXED, NONPERSISTENT, SESSION
from tests.lab.world import CLASSES, STANDARD

_ROOMY: Final = {type: {"sockets": 100_000} for type in TYPES}
#: Classes whose services are restarted all the time: the cgroup that is made anew at each start,
#: and what the service gets.
SERVICES: Final = {
    "daemon": ("services/daemon.service", FIXED),
    "instance": ("services/instance@one.service", SESSION),
}
_MORE: Final = {
    "counted": LabClass(allow=TYPES, default=FIXED, caps=_ROOMY),
    "capped": LabClass(allow=TYPES, default=SESSION, caps={SESSION: {"sockets": 8}}),
    **{
        name: LabClass(allow=(type,), default=type, cgroups=(path.replace("@one", "@*"),))
        for name, (path, type) in SERVICES.items()
    },
}
#: class -> what a socket gets that asks for nothing; None: the host's ordinary address.
DEFAULTS: Final[dict[str, AddressType | None]] = {
    "fixed": FIXED,
    "session": SESSION,
    "brief": NONPERSISTENT,
    "graceful": AddressType.GRACEFUL_REPLACEMENT,
    "choosy": SESSION,
    "strict": FIXED,
    "inner": SESSION,
    "counted": FIXED,
    "capped": SESSION,
    "every": None,
    "limited": None,
    "nothing": None,
    "audited": None,
    "plain": None,
}
#: Where a class's cgroup is not called as the class.
CGROUPS: Final = {"inner": "fixed/inner"}
#: Classes whose sockets are all counted.
COUNTED: Final = ("counted", "capped")
SETTINGS: Final[Settings] = replace(STANDARD, classes={**CLASSES, **_MORE})


def allowed(name: str) -> frozenset[AddressType]:
    """The types that a class may use."""
    return frozenset(SETTINGS.classes[name].allow) if name in SETTINGS.classes else frozenset()


def variants() -> list[Settings]:
    """Configurations that the agent is made to reload.

    None changes what `DEFAULTS` says, nor takes an address away: that would end its connections.
    """
    extra = LabClass(allow=(FIXED,), default=FIXED, cgroups=("elsewhere",))
    wider = replace(_MORE["counted"], caps={FIXED: {"sockets": 200_000}})
    closed = replace(SETTINGS.classes["limited"], refuse=("raw", "packet"))
    return [
        SETTINGS,
        replace(SETTINGS, classes={**SETTINGS.classes, "extra": extra}),
        replace(SETTINGS, classes={**SETTINGS.classes, "counted": wider}),
        replace(SETTINGS, extra={"fixed6": {"preference": 5}, "brief4": {"preference": -1}}),
        replace(SETTINGS, classes={**SETTINGS.classes, "limited": closed}),
    ]
