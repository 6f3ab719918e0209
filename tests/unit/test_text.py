"""Names of others, as people and programs get them."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm_agent.text import (
    bar,
    bytes_words,
    duration_words,
    kernel_lines,
    mount_point,
    printable,
    printable_lines,
    printable_values,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"ssh.service", "ssh.service"),
        (b"dev-disk\\x2duuid", "dev-disk\\x2duuid"),
        ("größe-日本".encode(), "größe-日本"),
        (b"\xff\xfe.service", "\\xff\\xfe.service"),
        (b"\x1b[2J", "\\x1b[2J"),
        (b"a\nb\r\t", "a\\x0ab\\x0d\\x09"),
        ("\u202egpj\u2066\u200b".encode(), "\\u202egpj\\u2066\\u200b"),
        ("\x9b2J\u2028".encode(), "\\u009b2J\\u2028"),
        ("\U000e0041".encode(), "\\U000e0041"),
    ],
)
def test_what_is_not_printable_is_escaped(name: bytes, shown: str) -> None:
    assert printable(os.fsdecode(name)) == shown


@given(st.binary(max_size=40).map(os.fsdecode) | st.text(max_size=20))
def test_whatever_comes_leaves_as_one_printable_line_of_utf8(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    shown.encode()


def test_a_text_keeps_its_lines_and_values_their_shape() -> None:
    assert printable_lines("one\n\x1btwo\n") == "one\n\\x1btwo\n"
    values = {"\udcff": ["a\udc80", 1, None, {"b": "\x1b"}], "c": True}
    shown = {"\\xff": ["a\\x80", 1, None, {"b": "\\x1b"}], "c": True}
    assert printable_values(values) == shown


def test_a_line_of_the_kernel_ends_at_a_line_feed_only(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    path.write_bytes(b"a\xff\x0cb\xe2\x80\xa8c\nd\n")
    assert kernel_lines(path) == ["a\udcff\x0cb\u2028c", "d", ""]


def test_a_mount_point_is_what_it_stands_for() -> None:
    assert mount_point("/mnt/a\\040b\\134\udcff") == "/mnt/a b\\\udcff"


@pytest.mark.parametrize(
    ("used", "whole", "shown"),
    [
        (0, 100, "----------"),
        (9, 100, "----------"),
        (10, 100, "#---------"),
        (99.9, 100, "#########-"),
        (100, 100, "##########"),
        (250, 100, "##########"),
        (0, 0, "##########"),
    ],
)
def test_a_bar_is_full_when_all_is_used_and_not_before(
    used: float, whole: float, shown: str
) -> None:
    assert bar(used, whole) == shown


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_345_678, "12.3 MB"),
        (10**9, "1.0 GB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_bytes_are_told_in_the_units_of_the_configuration(count: int, words: str) -> None:
    assert bytes_words(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (725, "12m 5s"),
        (3600, "1h"),
        (3605, "1h 5s"),
        (100_000, "1d 3h"),
    ],
)
def test_durations_are_told_in_their_two_largest_units(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words
