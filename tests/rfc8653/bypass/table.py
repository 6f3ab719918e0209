"""All techniques, group by group: the order of the page."""

from typing import Final

from tests.rfc8653.bypass import (
    tricks_bind,
    tricks_connect,
    tricks_datagram,
    tricks_disguised,
    tricks_forwarded,
    tricks_frames,
    tricks_handover,
    tricks_kernel,
    tricks_loopback,
    tricks_membership,
    tricks_mptcp,
    tricks_older,
    tricks_raw,
    tricks_routing,
    tricks_servers,
    tricks_uring,
)

GROUPS: Final = {
    module.GROUP: module.TECHNIQUES
    for module in (
        tricks_bind,
        tricks_connect,
        tricks_datagram,
        tricks_routing,
        tricks_servers,
        tricks_disguised,
        tricks_uring,
        tricks_mptcp,
        tricks_handover,
        tricks_membership,
        tricks_older,
        tricks_raw,
        tricks_frames,
        tricks_loopback,
        tricks_forwarded,
        tricks_kernel,
    )
}
TECHNIQUES: Final = tuple(each for group in GROUPS.values() for each in group)
CASES: Final = tuple((each, form) for each in TECHNIQUES for form in each.forms)
