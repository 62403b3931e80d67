"""FileSource."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.common.errors import InputError
from data.corpus.faults import Fault
from data.corpus.sources import FileSource
from data.corpus.utterance import Utterance


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """One at 16 kHz, one at 44.1 kHz of an odd length."""
    found = []
    for name, num_samples, rate in [("a", 3200, 16000), ("b", 44101, 44100)]:
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, np.sin(np.arange(num_samples) * 0.02) * 0.5, rate)
        found.append(Utterance(name, str(path), name.upper(), num_samples, rate, "s" + name))
    return found


def test_texts_ids_and_lengths_at_16_khz(utterances: list[Utterance]) -> None:
    source = FileSource(utterances=utterances)
    assert list(source.utterance_ids) == ["a", "b"]
    assert list(source.texts) == ["A", "B"]
    assert list(source.speaker_ids) == ["sa", "sb"]
    assert source.num_samples.dtype == np.int64
    assert source.num_samples.tolist() == [3200, 16001]


def test_waveforms_have_their_lengths_from_many_threads(utterances: list[Utterance]) -> None:
    source = FileSource(utterances=utterances)
    with ThreadPoolExecutor(4) as pool:
        waveforms = list(pool.map(source.read_waveform, [0, 1] * 20))
    for index, waveform in zip([0, 1] * 20, waveforms, strict=True):
        assert waveform.dtype == np.float32
        assert waveform.shape == (source.num_samples[index],)
    np.testing.assert_allclose(waveforms[0], np.sin(np.arange(3200) * 0.02) * 0.5, atol=1e-4)
    np.testing.assert_array_equal(waveforms[1], waveforms[39])


def test_refuses_other_rates_before_reading(utterances: list[Utterance]) -> None:
    with pytest.raises(InputError, match=r"1 of 2 files .* first .*b\.wav with 44100 Hz"):
        FileSource(utterances=utterances, on_rate_mismatch="refuse")
    with pytest.raises(ValueError, match="on_rate_mismatch is 'x'"):
        FileSource(utterances=utterances, on_rate_mismatch="x")


def test_other_rates_are_left_out_where_the_report_lets_them_pass(
    utterances: list[Utterance],
) -> None:
    faults: list[Fault] = []
    source = FileSource(utterances=utterances, on_rate_mismatch="refuse", report=faults.append)
    assert list(source.utterance_ids) == ["a"]
    assert [(fault.code, fault.details) for fault in faults] == [("wrong_rate", {"b": "44100 Hz"})]


def test_recordings_come_as_they_are_stored(utterances: list[Utterance]) -> None:
    source = FileSource(utterances=utterances)
    assert source.sample_rates.tolist() == [16000, 44100]
    channels, rate = source.read_recording(1)
    assert (channels.shape, rate) == ((44101, 1), 44100)


def test_a_file_that_changed_or_went_is_named(utterances: list[Utterance]) -> None:
    source = FileSource(utterances=utterances)
    soundfile.write(utterances[0].audio_filepath, np.zeros(100), 16000)
    with pytest.raises(InputError, match=r"a\.wav has 100 samples, 3200 when it was listed"):
        source.read_waveform(0)
    Path(utterances[1].audio_filepath).unlink()
    with pytest.raises(InputError, match=r"no audio file .*b\.wav"):
        source.read_waveform(1)
