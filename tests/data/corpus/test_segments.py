"""Which part of a recording a manifest's offset and duration mean."""

from __future__ import annotations

import math

import pytest

from data.corpus.segments import ListedTime, Segment, find_segment, read_time


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({}, ListedTime()),
        ({"offset": 1.5, "duration": 2}, ListedTime(1.5, 2.0, 1.0)),
        ({"offset": "1.50", "duration": "2.255"}, ListedTime(1.5, 2.255, 0.001)),
        ({"offset": None, "duration": None}, ListedTime()),
        ({"offset": math.nan, "duration": math.nan}, ListedTime()),
        ({"offset": "", "duration": " "}, ListedTime()),
        ({"duration": "0:02"}, ListedTime()),
        ({"start": 3.0, "end": 5.5}, ListedTime(None, 2.5)),
        ({"start_time": "3", "end_time": "4"}, ListedTime(None, 1.0)),
        ({"start": "12:00", "end": "12:05"}, ListedTime()),
        ({"start": [1], "end": 2}, ListedTime()),
        ({"start": 9.0, "end": 12.0, "duration": 3.0}, ListedTime(None, 3.0, 0.1)),
    ],
)
def test_time_is_read_in_every_form_that_manifests_have(record, wanted):
    assert read_time(record) == wanted


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"offset": -1}, "has offset -1: give seconds from the beginning"),
        ({"offset": "0:02"}, "has offset 0:02: give seconds as a number"),
        ({"offset": True}, "has offset True: give seconds as a number"),
        ({"offset": [1]}, "has offset a list: give seconds as a number"),
        ({"offset": math.inf}, "has offset inf: give seconds as a number"),
        ({"offset": 1, "duration": "0:02"}, "has duration 0:02: give seconds as a number"),
        ({"offset": 1, "duration": 0}, "has duration 0: give the seconds of the segment"),
        ({"duration": {}}, "has duration a dict: give seconds as a number"),
        ({"duration": 10**4000}, "has duration 1000000000000000000000000000000000000000"),
        ({"duration": "9" * 9000}, "has duration 9999999999999999999999999999999999999999..."),
    ],
)
def test_a_time_that_is_none_is_refused(record, reason):
    with pytest.raises(ValueError, match="^has ") as caught:
        read_time(record)
    assert str(caught.value).startswith(reason) and len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("time", "wanted"),
    [
        (ListedTime(), Segment(None, 64_000)),
        (ListedTime(1.99, 2.0, 0.1), Segment(31_840, 32_000)),
        (ListedTime(1.99), Segment(31_840, 32_160)),
        (ListedTime(0.0, 1.0), Segment(0, 16_000)),
        # The whole file, but for rounding.
        (ListedTime(0.0, 4.0, 0.1), Segment(None, 64_000)),
        (ListedTime(0.0, 4.04, 0.01), Segment(None, 64_000)),
        (ListedTime(0.0), Segment(None, 64_000)),
        # A duration that was rounded up ends with the file.
        (ListedTime(3.0, 1.01, 0.01), Segment(48_000, 16_000)),
        (ListedTime(None, 4.0, 0.1), Segment(None, 64_000)),
        (ListedTime(None, 3.96, 0.01), Segment(None, 64_000)),
        (ListedTime(None, 3.0, 1.0), Segment(None, 64_000, "3 s listed, 4 s in the file")),
        (ListedTime(None, 3.5, 1.0), Segment(None, 64_000)),
        (ListedTime(None, 3.5, 0.1), Segment(None, 64_000, "3.5 s listed, 4 s in the file")),
        (ListedTime(None, 4000.0, 1.0), Segment(None, 64_000, "4000 s listed, 4 s in the file, milliseconds?")),
    ],
)
def test_a_segment_is_placed_in_four_seconds(time, wanted):
    assert find_segment(time, num_samples=64_000, sample_rate=16_000) == wanted


@pytest.mark.parametrize("time", [ListedTime(4.0), ListedTime(3.0, 2.0, 0.1), ListedTime(1990.0, 2255.0, 1.0)])
def test_a_segment_beyond_the_recording_is_refused(time):
    with pytest.raises(ValueError, match="in a recording of 4 s: give offset and duration in seconds within this file"):
        find_segment(time, num_samples=64_000, sample_rate=16_000)


def test_an_mp3_may_have_its_encoders_silence():
    times = {"num_samples": 64_000, "sample_rate": 16_000}
    assert find_segment(ListedTime(None, 3.8, 0.1), **times, is_lossy=True).conflict == ""
    assert find_segment(ListedTime(None, 3.8, 0.1), **times).conflict != ""
