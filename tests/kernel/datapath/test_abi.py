"""bpf/odm_abi.h is the one source of truth: the Python mirror agrees with it in every value."""

import ctypes as ct
import re
import subprocess
from enum import IntEnum
from pathlib import Path

import pytest

from odm_agent.control import wait_caller
from odm_agent.core.model import AddressType, Mode
from odm_agent.datapath import abi
from odm_agent.datapath.install import c_text

_HEADER = c_text.folder() / "odm_abi.h"

#: enum in C -> its mirror, and what its members are called in C.
_ENUMS: dict[str, tuple[type[IntEnum], str]] = {
    "odm_type": (AddressType, "ODM_"),
    "odm_family": (abi.FamilyIndex, "ODM_"),
    "odm_mode": (Mode, "ODM_MODE_"),
    "odm_verdict": (abi.Verdict, "ODM_"),
    "odm_reason": (abi.Reason, "ODM_R_"),
    "odm_hook": (abi.Hook, "ODM_H_"),
    "odm_loss": (abi.Loss, "ODM_LOST_"),
    "odm_event_kind": (abi.EventKind, "ODM_E_"),
    "odm_outlook_state": (abi.OutlookState, "ODM_OUTLOOK_"),
    "odm_notice_state": (abi.NoticeState, "ODM_NOTICE_"),
    "odm_byte": (abi.ByteKind, "ODM_BYTE_"),
}


def _without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def _structs() -> dict[str, list[str]]:
    """struct -> its fields, as the header has them."""
    text = _without_comments(_HEADER.read_text())
    return {
        match[1]: re.findall(r"\b(\w+)(?:\[\w+\])?;", match[2])
        for match in re.finditer(r"struct (odm_\w+) \{(.*?)\n\};", text, re.DOTALL)
    }


def _enums() -> dict[str, list[str]]:
    text = _without_comments(_HEADER.read_text())
    return {
        match[1]: re.findall(r"\b(ODM_\w+) =", match[2])
        for match in re.finditer(r"enum (odm_\w+) \{(.*?)\n\};", text, re.DOTALL)
    }


def _constants() -> list[str]:
    """The plain numbers among the header's macros."""
    text = _without_comments(_HEADER.read_text())
    return re.findall(r"^#define (ODM_\w+)[ \t]+(?:0x)?\w+[ \t]*$", text, re.MULTILINE)


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Every size, offset, enumerator and constant of the header, as the C compiler sees it."""
    wanted = {f"sizeof {name}": f"sizeof(struct {name})" for name in _structs()}
    for name, fields in _structs().items():
        wanted |= {f"{name}.{each}": f"offsetof(struct {name}, {each})" for each in fields}
    for names in _enums().values():
        wanted |= {each: each for each in names}
    wanted |= {each: each for each in _constants()}
    lines = [f'printf("%s=%llu\\n", "{k}", (unsigned long long)({v}));' for k, v in wanted.items()]
    folder = tmp_path_factory.mktemp("abi")
    program = folder / "probe.c"
    program.write_text(
        "#include <linux/bpf.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        f'#include "{_HEADER}"\nint main(void)\n{{\n{"".join(lines)}\nreturn 0;\n}}\n'
    )
    subprocess.run(["cc", "-Wall", "-o", folder / "probe", program], check=True)
    printed = subprocess.run([folder / "probe"], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split("=") for line in printed.splitlines())}


def test_every_struct_has_a_mirror_of_the_same_shape(in_c: dict[str, int]) -> None:
    assert abi.STRUCTS.keys() == _structs().keys()
    for name, mirror in abi.STRUCTS.items():
        assert ct.sizeof(mirror) == in_c[f"sizeof {name}"], name
        fields = [field[0] for field in mirror._fields_]
        assert fields == _structs()[name], name
        for field in fields:
            assert getattr(mirror, field).offset == in_c[f"{name}.{field}"], (name, field)


def test_every_enum_has_a_mirror_with_the_same_members(in_c: dict[str, int]) -> None:
    assert _ENUMS.keys() == _enums().keys()
    for name, (mirror, prefix) in _ENUMS.items():
        theirs = {each: in_c[each] for each in _enums()[name]}
        count = [each for each, value in theirs.items() if value == len(mirror)]
        ours = {f"{prefix}{member.name}": member.value for member in mirror}
        assert {k: v for k, v in theirs.items() if k not in count} == ours


def test_every_constant_has_a_mirror(in_c: dict[str, int]) -> None:
    for name in _constants():
        if name.removeprefix("ODM_") == "ABI_H":
            continue
        assert getattr(abi, name.removeprefix("ODM_")) == in_c[name], name


_PUBLIC = {
    "FIXED_IP_ADDRESS": "ODM_FIXED",
    "SESSION_LASTING_IP_ADDRESS": "ODM_SESSION_LASTING",
    "NON_PERSISTENT_IP_ADDRESS": "ODM_NONPERSISTENT",
    "GRACEFUL_REPLACEMENT_IP_ADDRESS": "ODM_GRACEFUL_REPLACEMENT",
    "ODM_ON_DEMAND_SHIFT": "ODM_FIELD_SHIFT",
    "ODM_ON_DEMAND_MASK": "ODM_FIELD_MASK",
    "ODM_OPTION_SET_SIZE": "ODM_REQUEST_SIZE",
    "sizeof(struct odm_option)": "sizeof(struct odm_request)",
    **{
        f"offsetof(struct odm_option, {field})": f"offsetof(struct odm_request, {field})"
        for field, *_ in abi.Request._fields_
    },
    "sizeof(struct odm_prospect)": "sizeof(struct odm_outlook)",
    "offsetof(struct odm_prospect, address)": "offsetof(struct odm_outlook, addr)",
    "offsetof(struct odm_prospect, ticket)": "offsetof(struct odm_outlook, ticket)",
    "offsetof(struct odm_prospect, state)": "offsetof(struct odm_outlook, state)",
    **{f"ODM_SOURCE_{state.name}": f"ODM_OUTLOOK_{state.name}" for state in abi.OutlookState},
    "sizeof(struct odm_address_notice)": "sizeof(struct odm_notice)",
    **{
        f"offsetof(struct odm_address_notice, {public})": f"offsetof(struct odm_notice, {inner})"
        for public, inner in {
            **{each: each for each in ("value", "state", "type", "successor", "room")},
            "preferred_until_ns": "preferred_ns",
            "valid_until_ns": "valid_ns",
            "address": "addr",
        }.items()
    },
    **{
        f"ODM_ADDRESS_{state.name}": f"ODM_NOTICE_{state.name}"
        for state in abi.NoticeState
        if state is not abi.NoticeState.NONE
    },
    "sizeof(struct odm_wait_request_)": str(wait_caller.REQUEST.size),
    "sizeof(struct odm_wait_answer_)": str(wait_caller.ANSWER.size),
    **{
        f"ODM_WAIT_{said.name}_": str(int(said))
        for said in wait_caller.Said
        if said is not wait_caller.Said.BUSY
    },
    "ODM_WAIT_UNREACHABLE_": str(int(wait_caller.Said.BUSY)),
}


def test_application_header_agrees(tmp_path: Path) -> None:
    """bpf/uapi/odm.h stands alone for applications: its numbers are compared, not shared.

    Both name ON_NET and FRESH alike, so the compiler itself refuses a difference (-Werror).
    """
    program = tmp_path / "uapi.c"
    public = c_text.folder() / "uapi" / "odm.h"
    asserts = [f'_Static_assert((int){a} == (int){b}, "{a}");' for a, b in _PUBLIC.items()]
    program.write_text(
        "\n".join(
            [
                "#include <linux/bpf.h>",
                "#include <stddef.h>",
                f'#include "{public}"',
                f'#include "{_HEADER}"',
                *asserts,
                "int main(void) { return 0; }",
                "",
            ]
        )
    )
    subprocess.run(["cc", "-Wall", "-Werror", "-o", tmp_path / "uapi", program], check=True)
