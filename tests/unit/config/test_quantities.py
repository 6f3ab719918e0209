"""Durations, numbers of bytes and parts, as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm_agent.config.quantities import LARGEST, LONGEST_S, number_of_bytes, percent, seconds

CENTURY = f"{LONGEST_S // 86400}d"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1s", 1),
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("7d", 604_800),
        ("1d1h1m1s", 90_061),
        ("100m", 6000),
        ("007d", 604_800),
        (CENTURY, LONGEST_S),
    ],
)
def test_a_duration_is_whole_seconds(text: str, expected: int) -> None:
    assert seconds(text) == expected
    assert isinstance(seconds(text), int)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("90", "has no unit; write it like"),
        ("0", "has no unit"),
        ("", "is no duration"),
        (" 90s", "is no duration"),
        ("90 s", "is no duration"),
        ("90s\n", "is no duration"),
        ("1m1h", "is no duration"),
        ("1h1h", "is no duration"),
        ("1.5h", "is no duration"),
        ("-5s", "is no duration"),
        ("+5s", "is no duration"),
        ("1e3s", "is no duration"),
        ("5S", "is no duration"),
        ("1w", "is no duration"),
        ("inf", "is no duration"),
        ("٣s", "is no duration"),
        ("s", "is no duration"),
        ("0s", "is out of range; use 1s to"),
        ("0h0m", "is out of range"),
        (f"{CENTURY}1s", "is out of range"),
        ("9" * 5000 + "d", "is out of range"),
    ],
)
def test_what_is_no_duration_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        seconds(text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 250, "a message, not a page"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1B", 1),
        ("65575B", 65_575),
        ("1kB", 1000),
        ("500MB", 500_000_000),
        ("500 MB", 500_000_000),
        ("10GB", 10_000_000_000),
        ("1KiB", 1024),
        ("2GiB", 2_147_483_648),
        ("8TiB", 2**43),
        ("1000000TB", LARGEST),
        ("999999999999999999B", 999_999_999_999_999_999),
    ],
)
def test_a_number_of_bytes_is_exact(text: str, expected: int) -> None:
    assert number_of_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("500", "has no unit; write it like"),
        ("", "is no number of bytes"),
        ("5gb", "is no number of bytes"),
        ("5Mb", "is no number of bytes"),
        ("5G", "is no number of bytes"),
        ("1.5GB", "is no number of bytes"),
        ("-5GB", "is no number of bytes"),
        ("5  GB", "is no number of bytes"),
        ("5GB\n", "is no number of bytes"),
        ("٣GB", "is no number of bytes"),
        ("0GB", "is out of range; use 1B to"),
        ("1000001TB", "is out of range"),
        ("9" * 5000 + "GB", "is out of range"),
    ],
)
def test_what_is_no_number_of_bytes_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        number_of_bytes(text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(("text", "expected"), [("1%", 1), ("80%", 80), ("100%", 100)])
def test_a_part_is_a_whole_number_of_percent(text: str, expected: int) -> None:
    assert percent(text) == expected


@pytest.mark.parametrize("text", ["0%", "101%", "80", "0.8", "80 %", "-1%", "", "1000%", "٨%"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r'write it like "80%"'):
        percent(text)


@given(st.integers(1, LONGEST_S))
def test_every_duration_can_be_written_in_its_units(whole: int) -> None:
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    assert seconds(f"{d}d{h}h{m}m{s}s") == seconds(f"{whole}s") == whole


@given(st.text(alphabet="0123456789dhmsBkMGTi% .-+e\n٣", max_size=12))
def test_whatever_is_written_is_a_number_in_range_or_a_value_error(text: str) -> None:
    for read, most in ((seconds, LONGEST_S), (number_of_bytes, LARGEST), (percent, 100)):
        try:
            assert 0 < read(text) <= most
        except ValueError as error:
            assert "write it like" in str(error) or "out of range" in str(error)
