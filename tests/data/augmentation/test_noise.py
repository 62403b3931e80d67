"""Noise has the ratio that is asked for, whatever its source; bad recordings are named and left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from scipy import signal

from data.augmentation.draws import TRAINING, Draws
from data.augmentation.filters import power
from data.augmentation.noise import GENERATED, GeneratedNoise
from data.common.errors import InputError
from tests.helpers.augment_toys import ToySource, decibels, make_augmenter, white


def ratio_db(augmenter, waveform, **arguments):
    """The measured ratio of speech to noise."""
    noise = augmenter.apply(waveform, **{"epoch": 0, "members": (0,), **arguments}) - waveform
    return decibels(power(waveform) / power(noise))


@pytest.mark.parametrize("wanted", [-5.0, 0.0, 10.0, 30.0])
def test_generated_noise_has_the_ratio_that_is_asked_for(wanted):
    augmenter = make_augmenter(noise_prob=1.0, noise_snr_db=(wanted, wanted))
    names = []
    for epoch in range(12):
        found = ratio_db(augmenter, white(24_000, seed=epoch), epoch=epoch, notes=names)
        assert found == pytest.approx(wanted, abs=0.01)
    assert {name.split()[0] for name in names} == set(GENERATED)
    assert all(name.endswith(f" at {wanted:.1f} dB") for name in names)


def test_ratios_fill_their_range():
    augmenter = make_augmenter(noise_prob=1.0, noise_snr_db=(5.0, 25.0))
    found = [ratio_db(augmenter, white(2000), epoch=epoch) for epoch in range(60)]
    assert 5.0 <= min(found) < 7.0 and 23.0 < max(found) <= 25.001


def test_generated_noises_have_their_slopes_and_the_hum_its_harmonics():
    noise = GeneratedNoise(Draws(seed=0, purpose=TRAINING))

    def slope(number):
        """Fall of the density from 500 Hz to 4 kHz, three octaves, in dB."""
        samples, name = noise.draw(np.array([(number + 0.5) / 4, 0.3]), 160_000, lambda *_: None)
        frequencies, density = signal.welch(samples, 16_000, nperseg=4096)
        assert name.startswith(GENERATED[number]) and power(samples) == pytest.approx(1.0, rel=0.2)
        levels = [density[(frequencies > f / 1.2) & (frequencies < f * 1.2)].mean() for f in (500, 4000)]
        return decibels(levels[0] / levels[1]), frequencies, density

    for number, wanted in enumerate((0.0, 9.0, 18.0)):
        assert slope(number)[0] == pytest.approx(wanted, abs=1.0)
    _, frequencies, density = slope(3)
    assert density[frequencies < 750].sum() / density.sum() > 0.999
    assert frequencies[density.argmax()] == pytest.approx(55, abs=8)


def test_a_loop_of_noise_has_no_seam():
    samples, _ = GeneratedNoise(Draws(seed=0, purpose=TRAINING)).draw(np.array([0.6, 0.999]), 32_000, lambda *_: None)
    steps = np.abs(np.diff(samples))
    assert steps.max() < 8 * steps.mean()  # brown noise


def test_silent_speech_gets_no_noise_and_no_nan():
    augmenter = make_augmenter(
        **{
            f"{kind}_prob": 1.0
            for kind in ("silence", "room", "noise", "babble", "equalizer", "low_pass", "gain", "clip", "telephone")
        }
    )
    for epoch in range(6):
        found = augmenter.apply(np.zeros(9000, np.float32), epoch=epoch, members=(1,))
        assert len(found) >= 9000 and not found.any()
    assert augmenter.apply(np.zeros(0, np.float32), epoch=0, members=(1,)).shape == (0,)


def test_the_ratio_is_that_of_the_speech_without_the_silence_around_it():
    augmenter = make_augmenter(noise_prob=1.0, noise_snr_db=(10.0, 10.0), silence_prob=1.0, silence_secs=(0.5, 1.0))
    waveform = white(16_000)
    before, after = augmenter.silence_samples(0)[2].tolist()
    found = augmenter.apply(waveform, epoch=0, members=(2,))
    noise = found - np.pad(waveform, (before, after))
    assert 8000 <= before <= 16_000 and 8000 <= after <= 16_000 and len(found) == before + 16_000 + after
    assert decibels(power(waveform) / power(noise)) == pytest.approx(10.0, abs=0.01)


@pytest.fixture
def noises(tmp_path):
    """Noise at another rate in stereo, shorter than speech, longer than what is kept in memory."""
    for name, secs, rate, channels in (("a/x.wav", 2, 44_100, 2), ("a/y.flac", 0.1, 16_000, 1), ("b.wav", 70, 8000, 1)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        samples = np.random.default_rng(0).uniform(-0.5, 0.5, (round(secs * rate), channels))
        soundfile.write(tmp_path / name, samples, rate)
    (tmp_path / ".hidden.wav").write_bytes(b"")
    (tmp_path / "README").write_text("no audio")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    return tmp_path


def test_recorded_noise_of_any_rate_and_length_has_the_ratio(noises):
    augmenter = make_augmenter(noise_prob=1.0, noise_snr_db=(10.0, 10.0), noise_source=str(noises))
    names = []
    for epoch in range(15):
        assert ratio_db(augmenter, white(24_000), epoch=epoch, notes=names) == pytest.approx(10.0, abs=0.01)
    assert {name.split()[0] for name in names} == {"a/x.wav", "a/y.flac", "b.wav"}


def test_a_short_noise_is_repeated(tmp_path):
    short = np.random.default_rng(1).uniform(-0.5, 0.5, 700)
    soundfile.write(tmp_path / "short.wav", short, 16_000, subtype="PCM_16")
    augmenter = make_augmenter(noise_prob=1.0, noise_source=str(tmp_path), noise_snr_db=(0.0, 0.0))
    waveform = white(5000)
    noise = augmenter.apply(waveform, epoch=0, members=(0,)) - waveform
    np.testing.assert_allclose(noise[700:4900], noise[:4200], atol=1e-5)


@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_a_list_names_noises_relative_to_itself(noises, kind):
    names = ["a/x.wav", "b.wav"]
    lines = [json.dumps({"audio_filepath": name}) for name in names] if kind == "jsonl" else names
    (noises / f"list.{kind}").write_text("\n".join(lines) + "\n")
    augmenter = make_augmenter(noise_prob=1.0, noise_source=str(noises / f"list.{kind}"))
    notes = []
    for epoch in range(12):
        augmenter.apply(white(4000), epoch=epoch, members=(0,), notes=notes)
    assert {note.split()[0].rpartition("/")[2] for note in notes} == {"x.wav", "b.wav"}


def test_musans_music_is_noise_and_its_speech_babble(tmp_path):
    for name in ("noise/free-sound/n.wav", "music/fma/m.wav", "speech/us-gov/s.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        soundfile.write(tmp_path / name, white(8000, seed=len(name)), 16_000)
    source, notes = ToySource(), []
    augmenter = make_augmenter(
        source, noise_prob=1.0, noise_source=str(tmp_path), babble_prob=1.0, babble_talkers=(2, 2),
        babble_snr_db=(60.0, 60.0),
    )  # fmt: skip
    for epoch in range(10):
        augmenter.apply(white(8000), epoch=epoch, members=(0,), notes=notes)
    assert {note.split()[0] for note in notes[::2]} == {"noise/free-sound/n.wav", "music/fma/m.wav"}
    assert set(notes[1::2]) == {"2 other talkers at 60.0 dB"} and not source.reads


def test_an_unreadable_and_a_silent_noise_are_named_and_the_next_one_is_taken(noises):
    (noises / "a/damaged.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    soundfile.write(noises / "silent.wav", np.zeros(1000), 16_000)
    augmenter = make_augmenter(noise_prob=1.0, noise_snr_db=(10.0, 10.0), noise_source=str(noises))
    bad = {}
    for epoch in range(30):
        found = ratio_db(augmenter, white(4000), epoch=epoch, on_bad=bad.__setitem__)
        assert found == pytest.approx(10.0, abs=0.01)
    assert bad.keys() == {"a/damaged.wav", "silent.wav"} and "is silent" in bad["silent.wav"]


def test_a_collection_without_a_single_good_noise_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^augment.noise_source=\S+: no audio file \(.flac, .wav, .ogg, .oga"):
        make_augmenter(noise_prob=1.0, noise_source=str(tmp_path))
    (tmp_path / "x.wav").write_bytes(b"no audio")
    with pytest.raises(InputError, match=r"^augment.noise_source=\S+: none of the first 1 of 1 recordings can be read"):
        make_augmenter(noise_prob=1.0, noise_source=str(tmp_path))
    with pytest.raises(InputError, match=r"^augment.noise_source=\S+/x: no such folder or list; did you mean"):
        make_augmenter(noise_prob=1.0, noise_source=str(tmp_path / "x"))
    (tmp_path / "list.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(InputError, match=r"list.jsonl:1 has no audio_filepath, add it$"):
        make_augmenter(noise_prob=1.0, noise_source=str(tmp_path / "list.jsonl"))
    soundfile.write(tmp_path / "x.wav", np.zeros(100), 16_000)
    silent = make_augmenter(noise_prob=1.0, noise_source=str(tmp_path))
    with pytest.raises(InputError, match="^no noise can be read, of 1 recordings; the last one: .* is silent"):
        silent.apply(white(100), epoch=0, members=(0,))


def test_a_source_is_not_opened_for_kinds_that_are_off(tmp_path):
    make_augmenter(gain_prob=1.0, noise_source=str(tmp_path / "gone"), room_source=str(tmp_path / "gone"))


def test_babble_is_made_of_other_rows_and_has_its_ratio():
    source = ToySource()
    augmenter = make_augmenter(source, babble_prob=1.0, babble_snr_db=(15.0, 15.0), babble_talkers=(3, 5))
    notes = []
    for epoch in range(12):
        found = ratio_db(augmenter, white(30_000, seed=9), epoch=epoch, members=(1, 3), notes=notes)
        assert found == pytest.approx(15.0, abs=0.01)
    assert set(source.reads) == {0, 2, 4} and len(source.reads) == 3  # each is read once
    assert {note[0] for note in notes} == {"3", "4", "5"}


def test_babble_does_without_rows_that_cannot_be_read():
    source = ToySource()
    source.bad[4] = InputError("damaged")
    augmenter, bad = make_augmenter(source, babble_prob=1.0), {}
    for epoch in range(8):
        augmenter.apply(white(4000), epoch=epoch, members=(0,), on_bad=bad.__setitem__)
    assert bad == {"utterance-4": "damaged"}
    source.bad = dict.fromkeys(range(5), InputError("damaged"))
    waveform = white(4000)
    lonely = make_augmenter(source, babble_prob=1.0)
    np.testing.assert_array_equal(lonely.apply(waveform, epoch=0, members=(0,)), waveform)
    with pytest.raises(
        InputError, match="^augment.babble_prob: babble is made of other utterances, and there are none"
    ):
        make_augmenter(ToySource([100]), babble_prob=1.0)
