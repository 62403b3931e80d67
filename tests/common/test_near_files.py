import pytest

from common.near_files import FileFinder, describe_near

COMPOSED, DECOMPOSED = "caf\u00e9.wav", "cafe\u0301.wav"


@pytest.mark.parametrize(
    ("there", "wanted", "difference"),
    [
        ("a.flac", "a.wav", "with another suffix"),
        ("A.WAV", "a.wav", "in another case"),
        (DECOMPOSED, COMPOSED, "its name in another Unicode form (NFD, not NFC)"),
        (COMPOSED, DECOMPOSED, "its name in another Unicode form (NFC, not NFD)"),
        ("Clips/a.wav", "clips/a.wav", "in another case"),
        ("wav/a.wav", "clips/a.wav", "in another folder"),
        ("deep/er/a.flac", "clips/a.wav", "in another folder, another suffix"),
    ],
)
def test_what_lies_near_an_absent_file_is_named_with_the_difference(tmp_path, there, wanted, difference):
    path = tmp_path / there
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert FileFinder(tmp_path).describe(tmp_path / wanted) == f"; {path} lies near, {difference}"


def test_another_recording_is_not_near_but_a_misspelled_manifest_is(tmp_path):
    (tmp_path / "train.jsonl").touch()
    (tmp_path / "0002.wav").touch()
    assert FileFinder(tmp_path).describe(tmp_path / "0001.wav") == ""
    for name in ("trian.jsonl", "train.json", "TRAIN.jsonl"):
        assert describe_near(tmp_path / name) == f"; did you mean {tmp_path}/train.jsonl?"
    for name in ("unlike.csv", "zzz.jsonl", "absent/train.jsonl"):
        assert describe_near(tmp_path / name) == ""


def test_a_difference_that_no_screen_shows_is_told(tmp_path):
    (tmp_path / DECOMPOSED).touch()
    said = f"; did you mean {tmp_path / DECOMPOSED}? (its name in another Unicode form (NFD, not NFC))"
    assert describe_near(tmp_path / COMPOSED) == said


@pytest.mark.parametrize("path", ["gs://bucket/a.wav", "a\0b.wav", "x" * 5_000, "", "/"])
def test_no_path_is_too_strange_to_ask_about(path):
    assert describe_near(path) == ""
