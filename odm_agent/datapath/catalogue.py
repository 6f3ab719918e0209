"""Every program of ours, and where the kernel runs it.

The one list: who compiles, attaches, pins, finds again, or looks what others have attached beside
ours, reads it here.
"""

from typing import Final, NamedTuple

from odm_agent.datapath import census, frames


class Program(NamedTuple):
    """`type` is a bpf_prog_type, `attach_type` a bpf_attach_type, `hook` the word for people."""

    hook: str
    type: int
    attach_type: int


#: Those attached to the cgroup by a link each, which is pinned as `DIR/links/NAME`. In the order of
#: attaching: what refuses and counts first, what hands out addresses last.
CGROUP: Final = {
    "odm_sock_release": Program("sock_release", 9, 34),
    "odm_sock_ops": Program("sock_ops", 13, 3),
    "odm_post_bind4": Program("post_bind4", 9, 12),
    "odm_post_bind6": Program("post_bind6", 9, 13),
    "odm_sock_create": Program("sock_create", 9, 2),
    "odm_egress": Program("egress", 8, 1),
    "odm_ingress": Program("ingress", 8, 0),
    "odm_getsockopt": Program("getsockopt", 25, 21),
    "odm_setsockopt": Program("setsockopt", 25, 22),
    "odm_bind4": Program("bind4", 18, 8),
    "odm_bind6": Program("bind6", 18, 9),
    "odm_sendmsg4": Program("sendmsg4", 18, 14),
    "odm_sendmsg6": Program("sendmsg6", 18, 15),
    "odm_connect4": Program("connect4", 18, 10),
    "odm_connect6": Program("connect6", 18, 11),
}

#: Those attached elsewhere, each in its own way: to interfaces, and to an iterator.
ELSEWHERE: Final = {
    frames.PROGRAM: Program("tc egress", 3, 0),
    census.PROGRAM: Program("socket storage", 26, 28),
}
#: Their pins beside the maps.
ELSEWHERE_PINS: Final = (frames.PROGRAM, census.PIN)

#: Those at tracepoints, by the tracepoints' names; not on kernels that can't have them. A link
#: each, which is pinned beside the maps by the program's name. In the order of attaching.
TRACEPOINTS: Final = {
    "odm_release": Program("cgroup_release", 17, 0),
    "odm_rmdir": Program("cgroup_rmdir", 17, 0),
    "odm_mkdir": Program("cgroup_mkdir", 17, 0),
}

#: But for `creation.PROGRAM`, which may stand at one of two places, or at none.
ALL: Final = CGROUP | ELSEWHERE | TRACEPOINTS

#: The kernel keeps 15 characters of a name, and the compiler takes what says the kind of program
#: off it.
BY_KERNEL_NAME: Final = {name.removeprefix("bpf_iter__")[:15]: name for name in ALL}
