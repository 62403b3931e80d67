"""Recordings to words: which order, which windows, and what one bad file does."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.inference.grouping import Grouping
from engine.inference.transcriber import SAMPLE_RATE, Transcriber, TranscriberOptions
from models.ctc.alignment import greedy_spans

VOCAB = "_abcdefghij "


class OneTokenASecond:
    """Each second of the waveform is one frame whose token is the second's first sample."""

    max_training_samples = 0

    def __call__(self, waveform, waveform_lengths, training=False, random=None):
        assert not training
        return 20.0 * tf.one_hot(tf.cast(tf.round(waveform[:, ::SAMPLE_RATE]), tf.int32), len(VOCAB))

    def output_lengths(self, waveform_lengths):
        return tf.cast(waveform_lengths, tf.int32) // SAMPLE_RATE


class Letters:
    token_strings = ["", *VOCAB[1:]]
    blank_id = 0


def count_samples(path):
    """A text file of letters stands for audio of as many seconds; "!" is where decoding fails."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if not text:
        raise ValueError("empty audio")
    return len(text) * SAMPLE_RATE


def stream_audio(path):
    with open(path, encoding="utf-8") as file:
        for letter in file.read():
            if letter == "!":
                raise ValueError("damaged")
            yield np.full(SAMPLE_RATE, VOCAB.index(letter), np.float32)


def make_transcriber(**fields):
    fields = {"batch_size": 2, "window_secs": 12, "overlap_secs": 5, **fields}
    find_reference = fields.pop("find_reference", lambda path: None)
    return Transcriber(
        model=OneTokenASecond(),
        span_decoder=greedy_spans,
        tokenizer=Letters(),
        count_samples=count_samples,
        stream_audio=stream_audio,
        normalize_waveform=lambda waveform: waveform,
        find_reference=find_reference,
        options=TranscriberOptions(**fields),
    )


def write(folder, **texts):
    paths = []
    for name, text in texts.items():
        paths.append(str(folder / f"{name}.wav"))
        (folder / f"{name}.wav").write_text(text, encoding="utf-8")
    return paths


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_transcripts_come_in_the_order_of_the_paths_whatever_the_batch(tmp_path, batch_size):
    texts = {"two": "d", "one": "ab_c", "four": "efg hij", "three": "b_b"}
    summary = make_transcriber(batch_size=batch_size).transcribe_files(write(tmp_path, **texts))
    assert [transcript.text for transcript in summary.transcripts] == ["d", "abc", "efg hij", "bb"]
    assert [transcript.duration_secs for transcript in summary.transcripts] == [1.0, 4.0, 7.0, 3.0]
    assert (summary.failures, summary.audio_secs) == ((), 15.0)
    (word,) = summary.transcripts[1].words
    assert [(c.text, c.start_secs, c.end_secs) for c in word.characters] == [("a", 0, 1), ("b", 1, 2), ("c", 3, 4)]
    assert summary.transcripts[1].confidence == pytest.approx(1.0, abs=1e-6)


def test_a_long_recording_reads_as_one(tmp_path):
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("abcdefghij _")) for _ in range(200))
    ran = []
    transcriber = make_transcriber()
    step = transcriber._rows._step
    transcriber._rows._step = lambda waveform, lengths: (ran.append(waveform.shape), step(waveform, lengths))[1]
    (found,) = transcriber.transcribe_files(write(tmp_path, long=text)).transcripts
    (whole,) = make_transcriber(window_secs=300).transcribe_files(write(tmp_path, long=text)).transcripts
    assert found == whole
    assert found.duration_secs == 200.0 and len(found.words) > 10
    assert max(shape[1] for shape in ran) == 12 * SAMPLE_RATE and max(shape[0] for shape in ran) == 2
    assert len(ran) == 14  # 28 windows of 12 s, every 7 s, two at a time


def test_a_token_held_across_a_joint_is_one_token(tmp_path):
    (found,) = make_transcriber().transcribe_files(write(tmp_path, long="a" * 40)).transcripts
    assert [(word.text, word.start_secs, word.end_secs) for word in found.words] == [("a", 0.0, 40.0)]


def test_a_model_of_short_rows_gets_short_windows(tmp_path):
    short = OneTokenASecond()
    short.max_training_samples = 6 * SAMPLE_RATE
    windowed = Transcriber(
        model=short,
        span_decoder=greedy_spans,
        tokenizer=Letters(),
        count_samples=count_samples,
        stream_audio=stream_audio,
        normalize_waveform=lambda waveform: waveform,
    )
    text = "ab_ba dcd_e fg hij ja"
    (found,) = windowed.transcribe_files(write(tmp_path, long=text)).transcripts
    assert windowed._window_samples == 6 * SAMPLE_RATE
    assert found.text == "abba dcde fg hij ja"


def test_the_note_about_windows_comes_once_and_only_where_a_recording_is_cut(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    transcriber = make_transcriber(cut_note="cut into windows of 12 s")
    transcriber.transcribe_files(write(tmp_path, whole="abcdefghij_b"))
    assert "cut into windows" not in caplog.text
    transcriber.transcribe_files(write(tmp_path, long="ab_" * 20, longer="ab_" * 30))
    assert caplog.text.count("cut into windows of 12 s") == 1


@pytest.mark.parametrize("long", [False, True])
def test_a_bad_file_is_named_and_the_others_are_done(tmp_path, long):
    damaged = "ab" * 20 + "!" if long else "ab!"
    paths = write(tmp_path, a="ab", b="", c=damaged, d="cd")
    summary = make_transcriber().transcribe_files(paths)
    assert [transcript.text for transcript in summary.transcripts] == ["ab", "cd"]
    assert summary.failures == ((paths[1], "empty audio"), (paths[2], "damaged"))


@pytest.mark.parametrize("num_at_once", [1, 2])
def test_rows_of_like_length_run_together_and_come_back_in_order(num_at_once):
    transcriber = make_transcriber(grouping=Grouping(max_padding_ratio=0.1, num_at_once=num_at_once))
    waveforms = [np.full(secs * SAMPLE_RATE, 1.0, np.float32) for secs in (2, 9, 1, 9)]
    alone = [transcriber.log_probs([waveform])[0] for waveform in waveforms]
    together = transcriber.log_probs(waveforms)
    assert [len(one) for one in together] == [len(one) for one in alone] and len(together[1]) > len(together[0])
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_compiled_transcriber_hears_the_same_in_short_and_long_recordings(tmp_path):
    paths = write(tmp_path, a="abc", b="cdefgh", c="abcdefghij" * 3, d="j")
    plain, compiled = (make_transcriber(jit_compile=jit_compile) for jit_compile in (False, True))
    found, wanted = compiled.transcribe_files(paths).transcripts, plain.transcribe_files(paths).transcripts
    assert [one.text for one in found] == [one.text for one in wanted] and found[2].text == "abcdefghij" * 3
    assert [word.start_secs for one in found for word in one.words] == [w.start_secs for o in wanted for w in o.words]
