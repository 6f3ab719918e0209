"""What a binding does next: one table of (state, what came), and one of the exchanges of states.

A *binding* is what one IAID stands for: a prefix that is asked for, held, or given back. Entering a
state begins its exchange; staying in it goes on with the exchange that runs. What is not in the
table changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import Final

from odm_agent.sources.dhcpv6.messages import Kind


class State(Enum):
    """Where a binding stands."""

    #: Nothing is held; it is asked for at a set time.
    WAITING = "waiting"
    SOLICITING = "soliciting"
    REQUESTING = "requesting"
    #: Nobody wants it any more; what a late Reply gives goes back.
    LEAVING = "leaving"
    #: A prefix is held from here on.
    BOUND = "bound"
    RENEWING = "renewing"
    REBINDING = "rebinding"
    #: The link may be another one, or the agent: any server is asked whether the prefix holds.
    CONFIRMING = "confirming"
    #: A server does not know the binding; it is asked to make it anew.
    RESTORING = "restoring"
    #: The link is down.
    DETACHED = "detached"
    #: The present network does not serve it, another one may.
    UNSERVED = "unserved"
    #: Until here.
    RELEASING = "releasing"
    ENDED = "ended"


class Came(Enum):
    """What may happen to a binding."""

    #: The time that was set is there.
    BEGIN = auto()
    #: The best Advertise is chosen.
    OFFERED = auto()
    #: A Reply gives a prefix of the type, or the held one for longer.
    GIVEN = auto()
    #: A Reply, or all Advertises, give none, or say nothing of the one that is held.
    REFUSED = auto()
    #: A Reply gives a prefix of another type, or of none.
    WRONG = auto()
    #: A Reply takes the held prefix back: without an error, or for another one.
    TAKEN_BACK = auto()
    #: The network that the host is attached to now does not serve what another one gave, and it
    #: waits for one that does.
    NOT_HERE = auto()
    #: A server knows of no such binding.
    NO_BINDING = auto()
    #: Any Reply to a Release.
    ANSWERED = auto()
    #: The exchange has failed: its count or its time is over.
    GIVEN_UP = auto()
    T1 = auto()
    T2 = auto()
    #: The held prefix is not valid any more.
    EXPIRED = auto()
    #: Somebody begins to wait.
    WANTED = auto()
    #: Nobody waits any more; or what is held goes back.
    UNWANTED = auto()
    LINK_UP = auto()
    LINK_DOWN = auto()


class Do(Flag):
    """What is said of it."""

    NOTHING = 0
    GRANT = auto()
    WITHDRAW = auto()
    FAIL = auto()
    #: It is given to no socket any more, and kept.
    DEPRECATE = auto()
    UNSERVED = auto()


@dataclass(frozen=True, slots=True)
class Next:
    """The next state, what is said, and after how long its exchange begins (seconds)."""

    state: State
    do: Do = Do.NOTHING
    after_s: float = 0.0


#: After so long what a server has refused, though it could have known better, is tried again.
AGAIN_S: Final = 60.0
#: An error that a server answers at once would otherwise be answered at once, and so on.
ERROR_S: Final = 10.0
#: So long after a prefix is withdrawn no socket that had none of it gets an address of it.
RELEASE_S: Final = 1.0

_S, _C = State, Came
_UNHELD: Final = {
    _C.LINK_DOWN: Next(_S.ENDED),
}
_HELD: Final = {
    _C.EXPIRED: Next(_S.ENDED, Do.WITHDRAW),
    _C.TAKEN_BACK: Next(_S.ENDED, Do.WITHDRAW),
    _C.WRONG: Next(_S.RELEASING, Do.WITHDRAW | Do.FAIL, RELEASE_S),
    _C.UNWANTED: Next(_S.RELEASING, Do.WITHDRAW, RELEASE_S),
    _C.LINK_DOWN: Next(_S.DETACHED),
}
_NOT_HERE: Final = {_C.NOT_HERE: Next(_S.UNSERVED, Do.UNSERVED)}
_GIVEN: Final = {_C.GIVEN: Next(_S.BOUND, Do.GRANT)}

TRANSITIONS: Final[Mapping[State, Mapping[Came, Next]]] = {
    _S.WAITING: _UNHELD
    | {
        _C.BEGIN: Next(_S.SOLICITING),
        _C.WANTED: Next(_S.SOLICITING),
        _C.UNWANTED: Next(_S.ENDED),
    },
    _S.SOLICITING: _UNHELD
    | _GIVEN
    | {
        _C.OFFERED: Next(_S.REQUESTING),
        _C.REFUSED: Next(_S.SOLICITING, Do.FAIL),
        _C.WRONG: Next(_S.RELEASING, Do.FAIL),
        _C.WANTED: Next(_S.WAITING),
        _C.UNWANTED: Next(_S.LEAVING),
    },
    _S.REQUESTING: _UNHELD
    | _GIVEN
    | {
        _C.REFUSED: Next(_S.WAITING, Do.FAIL, AGAIN_S),
        _C.NO_BINDING: Next(_S.WAITING, Do.FAIL, AGAIN_S),
        _C.WRONG: Next(_S.RELEASING, Do.FAIL),
        _C.GIVEN_UP: Next(_S.SOLICITING),
        _C.UNWANTED: Next(_S.LEAVING),
    },
    _S.LEAVING: _UNHELD
    | {
        _C.GIVEN: Next(_S.RELEASING),
        _C.WRONG: Next(_S.RELEASING),
        _C.REFUSED: Next(_S.ENDED),
        _C.GIVEN_UP: Next(_S.ENDED),
        _C.WANTED: Next(_S.WAITING),
    },
    _S.BOUND: _HELD
    | {
        _C.T1: Next(_S.RENEWING),
        _C.T2: Next(_S.REBINDING),
    },
    _S.RENEWING: _HELD
    | _GIVEN
    | {
        _C.REFUSED: Next(_S.REBINDING, after_s=ERROR_S),
        _C.NO_BINDING: Next(_S.RESTORING),
        _C.T2: Next(_S.REBINDING),
    },
    _S.REBINDING: _HELD
    | _GIVEN
    | _NOT_HERE
    | {
        _C.NO_BINDING: Next(_S.RESTORING),
    },
    _S.CONFIRMING: _HELD
    | _GIVEN
    | _NOT_HERE
    | {
        _C.REFUSED: Next(_S.REBINDING, after_s=ERROR_S),
        _C.NO_BINDING: Next(_S.RESTORING),
        _C.GIVEN_UP: Next(_S.REBINDING),
    },
    # The gateway of a server that has lost its memory does not lead here any more (RFC 8978): what
    # is not restored, no other socket should have.
    _S.RESTORING: _HELD
    | _GIVEN
    | _NOT_HERE
    | {
        _C.REFUSED: Next(_S.REBINDING, Do.DEPRECATE, ERROR_S),
        _C.NO_BINDING: Next(_S.REBINDING, Do.DEPRECATE, ERROR_S),
        _C.GIVEN_UP: Next(_S.REBINDING, Do.DEPRECATE),
    },
    _S.DETACHED: _HELD
    | {
        _C.LINK_UP: Next(_S.CONFIRMING),
        _C.UNWANTED: Next(_S.ENDED, Do.WITHDRAW),
    },
    _S.UNSERVED: _HELD,
    _S.RELEASING: _UNHELD
    | {
        _C.ANSWERED: Next(_S.ENDED),
        _C.GIVEN_UP: Next(_S.ENDED),
    },
    _S.ENDED: {},
}

#: States in which nothing is held yet, and somebody must want it.
ASKING: Final = frozenset({_S.WAITING, _S.SOLICITING, _S.REQUESTING})
#: States in which a prefix is held.
HOLDING: Final = frozenset(
    {
        *(_S.BOUND, _S.RENEWING, _S.REBINDING, _S.CONFIRMING, _S.RESTORING),
        *(_S.DETACHED, _S.UNSERVED),
    }
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message that is sent until it is answered (RFC 8415, section 15; times in seconds).

    `irt_s` is the initial, `mrt_s` the longest time between two, `mrc` how many there are at most,
    `mrd_s` after how long it fails; 0: no limit. `to_one`: it carries a server's identifier,
    and no other server's answer counts.
    """

    kind: Kind | None
    irt_s: float = 0.0
    mrt_s: float = 0.0
    mrc: int = 0
    mrd_s: float = 0.0
    to_one: bool = False


#: RFC 8415, section 7.6. Renew also ends at T2, and Rebind with the prefix, by the table above.
EXCHANGES: Final[Mapping[State, Exchange]] = {
    _S.SOLICITING: Exchange(Kind.SOLICIT, irt_s=1, mrt_s=3600),
    _S.REQUESTING: Exchange(Kind.REQUEST, irt_s=1, mrt_s=30, mrc=10, to_one=True),
    _S.RENEWING: Exchange(Kind.RENEW, irt_s=10, mrt_s=600, to_one=True),
    _S.REBINDING: Exchange(Kind.REBIND, irt_s=10, mrt_s=600),
    # Section 18.2.12: by the times of a Confirm, which there is not for prefixes. These are what
    # section 15 calls parameters (IRT, MRT, MRC, MRD); a Confirm's delay before the first message
    # is none, and connections would wait for it.
    _S.CONFIRMING: Exchange(Kind.REBIND, irt_s=1, mrt_s=4, mrd_s=10),
    _S.RESTORING: Exchange(Kind.REQUEST, irt_s=1, mrt_s=30, mrc=10, to_one=True),
    _S.RELEASING: Exchange(Kind.RELEASE, irt_s=1, mrc=4, to_one=True),
    # Nothing is sent; so long a Reply to the last Solicit or Request may be late.
    _S.LEAVING: Exchange(None, mrd_s=10),
}
#: SOL_MAX_DELAY: hosts that are switched on at once don't ask at once (section 18.2.1).
SOL_MAX_DELAY_S: Final = 1.0
