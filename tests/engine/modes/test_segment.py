"""Long recordings with imperfect transcripts beside them."""

from __future__ import annotations

import json
import os
import shutil
from unittest.mock import Mock

import numpy as np
import pytest

from configs import base
from data.common.page import page_environment
from data.corpus.references import find_reference
from data.shards.records import encode_flac
from engine.config.early_checks import check_use
from engine.inference.transcriber import Transcriber, TranscriberOptions
from engine.modes import segment
from engine.segmentation import segmenter
from models.ctc.alignment import greedy_spans
from models.ctc.word_alignment import align_words
from tests.engine.inference.test_transcriber import VOCAB, count_samples, stream_audio, write
from tests.engine.modes.test_align import SureOfASecond

# A letter is a second; "_" is a second of silence. The digits of the alphabet of the test are a to j.
SAID = "_abc_ _dea_ _fgh_ _bca_ _hgf_ _cab_ _ade_ _gfh_ _bac_"
OPTIONS = {"min_secs": 1.0, "max_secs": 30.0, "pause_secs": 9.0, "min_confidence": 0.3}


class Letters:
    token_strings = ["", *VOCAB[1:]]
    blank_id = 0

    def encode(self, text):
        return [VOCAB.index(letter) for letter in text if letter in VOCAB]


@pytest.fixture
def run(monkeypatch, tmp_path):
    transcriber = Transcriber(
        model=SureOfASecond(),
        span_decoder=greedy_spans,
        tokenizer=Letters(),
        count_samples=count_samples,
        stream_audio=stream_audio,
        normalize_waveform=lambda waveform: waveform,
        find_reference=lambda path, **options: find_reference(path, text_normalization="none", **options),
        options=TranscriberOptions(window_secs=8, overlap_secs=4),
    )
    monkeypatch.setattr(segment, "load_transcriber", lambda **fields: transcriber)
    monkeypatch.setattr(segment, "identify_weights", lambda checkpoint, weights: checkpoint)
    monkeypatch.setattr(segment, "default_window_secs", lambda checkpoint: 8.0)
    monkeypatch.setattr(segmenter, "_PART_SECS", 10.0)

    class Parts:
        word_aligner = staticmethod(align_words)
        encode_flac = staticmethod(encode_flac)
        page_environment = staticmethod(page_environment)

    def call(**options):
        output = tmp_path / "out"
        fields = {**base.get_config().segment.to_dict(), **OPTIONS, **options}
        status = segment.run(
            parts=Parts(), checkpoint="x", inputs=[str(tmp_path / "in")], output=str(output), options=fields
        )
        return status, output

    (tmp_path / "in").mkdir()
    return call


def test_windows_suit_the_recognizer_unless_their_length_is_given(monkeypatch, tmp_path):
    def load(**fields):
        raise ValueError(f"windows of {fields['window_secs']} s")

    monkeypatch.setattr(segment, "load_transcriber", load)
    monkeypatch.setattr(segment, "identify_weights", lambda checkpoint, weights: checkpoint)
    monkeypatch.setattr(segment, "default_window_secs", lambda checkpoint: 2.5)
    (tmp_path / "a.wav").touch()
    arguments = {"parts": None, "checkpoint": "x", "inputs": [str(tmp_path / "a.wav")]}
    arguments |= {"options": base.get_config().segment.to_dict(), "output": str(tmp_path / "out")}
    for given, used in ((None, 2.5), (9.0, 9.0)):
        with pytest.raises(ValueError, match=f"windows of {used} s"):
            segment.run(**arguments, window_secs=given)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(records):
    return [record["text"] for record in records]


def test_a_passage_that_is_missing_and_a_word_that_was_never_said_are_cut_out(run, tmp_path, capsys):
    write(tmp_path / "in", long=SAID)
    (tmp_path / "in" / "long.txt").write_text("abc dea fgh bca iij ade gfh bac")
    status, output = run()
    assert status == 0
    kept, left_out = read(output / "segments.jsonl"), read(output / "left_out.jsonl")
    assert " ".join(texts(kept)) == "abc dea fgh bca ade gfh bac"
    reasons = {record["reason"]: record for record in left_out}
    assert reasons["not in the recording"]["text"] == "iij" and len(left_out) == 2
    # "hgf cab" is what is said from second 25 to 34.
    missing = reasons["not in the transcript"]
    assert missing["offset"] <= 25 and missing["offset"] + missing["duration"] >= 34
    first = kept[0]
    assert first["audio_filepath"].endswith("in/long.wav") and first["offset"] == pytest.approx(0.8)
    page = (output / "segments.html").read_text()
    assert "not in the transcript" in page and page.count("<audio") == len(kept)
    assert "7 of 8 words" in capsys.readouterr().out


def test_parts_change_nothing(run, tmp_path, monkeypatch):
    write(tmp_path / "in", long=SAID)
    (tmp_path / "in" / "long.txt").write_text("abc dea fgh bca hgf cab ade gfh bac")
    _, output = run()
    divided = (output / "segments.jsonl").read_text()
    monkeypatch.setattr(segmenter, "_PART_SECS", 1e6)
    run()
    assert (output / "segments.jsonl").read_text() == divided


def test_a_language_without_spaces_is_cut_between_its_letters(run, tmp_path, monkeypatch, capsys):
    letters = dict(zip("abcdefghij", "今天气很好明日雨风云", strict=True))
    monkeypatch.setattr(Letters, "token_strings", ["", *letters.values(), " "])
    monkeypatch.setattr(Letters, "encode", lambda self, text: [self.token_strings.index(letter) for letter in text])
    write(tmp_path / "in", long="_a_b_c_d_e__a_f_g_h_b_c_a_")
    text = "abcde\nijijafg hbca"
    (tmp_path / "in" / "long.txt").write_text("".join(letters.get(letter, letter) for letter in text))
    status, output = run()
    assert status == 0 and texts(read(output / "segments.jsonl")) == ["今天气很好", "今明日 雨天气今"]
    assert "".join(texts(read(output / "left_out.jsonl"))) == "风云风云"
    assert "12 of 16 words" in capsys.readouterr().out


def test_subtitles_serve_as_transcript_and_are_written(run, tmp_path):
    write(tmp_path / "in", long="_abc_ _dea_")
    (tmp_path / "in" / "long.srt").write_text(
        "1\n00:00:01,000 --> 00:00:03,000\nabc\n\n2\n00:00:05,000 --> 00:00:06,000\ndea\n"
    )
    status, output = run(formats=("vtt", "eaf"))
    assert status == 0 and texts(read(output / "segments.jsonl")) == ["abc dea"]
    assert "abc dea" in (output / "vtt" / "long.vtt").read_text() and (output / "eaf" / "long.eaf").exists()


def test_recordings_of_one_name_have_files_of_their_own(run, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / "in" / folder).mkdir()
        write(tmp_path / "in" / folder, long="_abc_ _dea_")
        (tmp_path / "in" / folder / "long.txt").write_text("abc dea")
    status, output = run(formats=("srt",))
    assert status == 0
    assert sorted(path.relative_to(output).as_posix() for path in output.glob("srt/**/*.srt")) == [
        "srt/one/long.srt", "srt/two/long.srt"
    ]  # fmt: skip


def test_a_word_whose_letters_have_no_text_is_not_found(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Letters, "token_strings", ["", *VOCAB[1:-2], "", VOCAB[-1]])  # "j" as an unknown token
    write(tmp_path / "in", long="_abc_ _jjj_ _dea_")
    (tmp_path / "in" / "long.txt").write_text("abc jjj dea")
    status, output = run()
    assert status == 0 and " ".join(texts(read(output / "segments.jsonl"))) == "abc dea"
    assert "jjj" in texts(read(output / "left_out.jsonl"))


def test_a_recording_without_a_transcript_is_named_and_the_others_are_cut(run, tmp_path, capsys):
    write(tmp_path / "in", good="_abc_ _dea_", bad="_abc_")
    (tmp_path / "in" / "good.txt").write_text("abc dea")
    status, output = run()
    assert status == 2 and texts(read(output / "segments.jsonl")) == ["abc dea"]
    assert "bad.wav was skipped: no transcript beside it: put its text into NAME.txt" in capsys.readouterr().err


@pytest.fixture
def three(tmp_path):
    """Three recordings with their texts."""
    write(tmp_path / "in", one=SAID, three="_dea_ _fgh_ _bca_", two="_abc_ _dea_ _hgf_")
    for name, text in {"one": "abc dea fgh bca iij ade gfh bac", "three": "dea fgh bca", "two": "abc dea hgf"}.items():
        (tmp_path / "in" / f"{name}.txt").write_text(text)


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def kill(monkeypatch):
    """Ends the mode when it begins to cut recording number `at`, as a signal does; returns the names that were cut."""
    cut_file = segment.segment_file

    def install(at=99):
        names = []

        def watched(transcriber, aligner, path, text, **options):
            names.append(os.path.basename(path))
            if len(names) > at:
                raise SystemExit(143)
            return cut_file(transcriber, aligner, path, text, **options)

        monkeypatch.setattr(segment, "segment_file", watched)
        return names

    return install


def test_the_same_command_goes_on_and_writes_what_an_uninterrupted_one_writes(run, three, kill, tmp_path, capsys):
    kill()
    status, output = run(formats=("srt", "eaf"))
    straight = content(output)
    assert status == 0 and set(straight) >= {"segments.jsonl", "left_out.jsonl", "segments.html", "srt/two.srt"}
    shutil.rmtree(output)
    kill(at=2)
    with pytest.raises(SystemExit):
        run(formats=("srt", "eaf"))
    assert not output.exists() and (tmp_path / "out.partial").exists()
    names = kill()
    status, output = run(formats=("srt", "eaf"))
    assert status == 0 and names == ["two.wav"]
    assert content(output) == straight and not (tmp_path / "out.partial").exists()
    assert "continues: 2 of 3 recordings are in" in capsys.readouterr().out


def test_a_kill_while_the_results_are_written_does_no_recording_again(run, three, kill, monkeypatch):
    kill()
    status, output = run()
    straight = content(output)
    shutil.rmtree(output)
    with monkeypatch.context() as patched:
        patched.setattr(segment, "render_page", Mock(side_effect=SystemExit(143)))
        with pytest.raises(SystemExit):
            run()
    assert output.exists()
    # The folder is no longer empty, which is refused to every other command.
    use = {"mode": "segment", "checkpoint": str(output), "inputs": [str(output)]}
    (output / "config.json").write_text("{}")
    check_use(**use, output=str(output))
    with pytest.raises(ValueError, match="is not empty"):
        check_use(**use, output=str(output.parent / "in"))
    (output / "config.json").unlink()
    names = kill()
    assert run()[0] == 0 and names == [] and content(output) == straight


def test_a_recording_or_a_transcript_that_has_changed_is_cut_anew(run, three, kill, tmp_path):
    kill(at=2)
    with pytest.raises(SystemExit):
        run()
    write(tmp_path / "in", one="_abc_ _dea_ _fgh_ _bca_")
    (tmp_path / "in" / "three.txt").write_text("dea fgh")
    names = kill(at=2)
    with pytest.raises(SystemExit):
        run()
    assert names == ["one.wav", "three.wav", "two.wav"]
    names = kill()
    status, output = run()
    assert status == 0 and names == ["two.wav"]
    kept = read(output / "segments.jsonl")
    assert " ".join(texts(kept)) == "abc dea fgh bca dea fgh abc dea hgf"


def test_another_setting_is_refused_in_a_line_and_another_format_is_not(run, three, kill, tmp_path):
    kill(at=1)
    with pytest.raises(SystemExit):
        run()
    with pytest.raises(ValueError, match=r"out.partial .* other settings \(min_secs was 1.0, is 2.0\): give that comm"):
        run(min_secs=2.0)
    names = kill()
    status, output = run(formats=("srt",))
    assert status == 0 and names == ["three.wav", "two.wav"] and (output / "srt" / "one.srt").exists()


def test_a_recording_that_failed_is_tried_again_and_the_others_are_not(run, three, kill, tmp_path, capsys):
    (tmp_path / "in" / "one.txt").unlink()
    kill(at=1)
    with pytest.raises(SystemExit):
        run()
    names = kill()
    (tmp_path / "in" / "one.txt").write_text("abc dea")
    (tmp_path / "in" / "two.wav").write_bytes(b"no audio")
    status, output = run()
    assert status == 2 and names == ["one.wav", "two.wav"]
    assert {record["audio_filepath"][-8:] for record in read(output / "segments.jsonl")} == {"/one.wav", "hree.wav"}
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "two.wav was skipped" in errors[0]


def test_a_job_that_cuts_nothing_leaves_nothing(run, tmp_path):
    write(tmp_path / "in", one="_abc_")
    with pytest.raises(ValueError, match="none of the 1 recordings could be cut; the first: .*no transcript beside it"):
        run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_damaged_row_is_one_line(run, three, kill, tmp_path):
    kill(at=1)
    with pytest.raises(SystemExit):
        run()
    partial = tmp_path / "out.partial"
    partial.write_text(partial.read_text().replace('"num_words": ', '"num_words": -0.'))
    kill()
    with pytest.raises(ValueError, match="out.partial: the row of .*one.wav.*; delete the file to begin anew"):
        run()


def test_a_part_that_is_too_large_is_left_out(run, tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "_MAX_PART_STATES", 10)
    write(tmp_path / "in", long="_abc_ _dea_")
    (tmp_path / "in" / "long.txt").write_text("abc dea")
    status, output = run()
    assert status == 2 and not read(output / "segments.jsonl")
    assert {record["reason"] for record in read(output / "left_out.jsonl")} == {
        "not in the transcript",
        "not in the recording",
    }


def test_a_wrong_field_is_one_line(run, tmp_path):
    write(tmp_path / "in", long="_abc_")
    with pytest.raises(ValueError, match=r"segment.formats=.*any of srt, vtt, textgrid, eaf"):
        run(formats=("doc",))
    with pytest.raises(ValueError, match=r"segment.max_secs=2 is less than segment.min_secs=3"):
        run(min_secs=3.0, max_secs=2.0)


def test_log_probabilities_wait_in_a_file(tmp_path):
    with (tmp_path / "kept").open("w+b") as file:
        kept = segmenter._Kept(file)
        chunks = [segmenter.LogitsChunk(np.full([2, 3], -float(i), np.float32), 2 * i) for i in range(3)]
        assert [chunk.start_frame for chunk in kept.keep(iter(chunks))] == [0, 2, 4]
        np.testing.assert_array_equal(kept.read(1, 5), np.repeat([[0.0], [-1.0], [-1.0], [-2.0]], 3, axis=1))
