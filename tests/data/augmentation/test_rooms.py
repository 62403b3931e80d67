"""Rooms begin with the direct sound and decay as fast as they are asked to."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from data.augmentation.audio_files import AudioFiles
from data.augmentation.draws import TRAINING, Draws
from data.augmentation.rooms import RecordedRooms, SimulatedRooms, align_response, simulate_room
from data.common.errors import InputError
from tests.helpers.augment_toys import make_augmenter, white


def decay_secs(response):
    """The decay time by Schroeder's backward integral, from the fall between 5 and 25 dB of the tail."""
    tail = response[200:].astype(np.float64)
    level = 10 * np.log10(np.cumsum(np.square(tail)[::-1])[::-1] / np.square(tail).sum())
    return 3.0 * (np.argmax(level < -25) - np.argmax(level < -5)) / 16_000


@pytest.mark.parametrize("wanted", [0.15, 0.3, 0.6, 1.2])
def test_a_simulated_room_decays_in_its_time(wanted):
    found = []
    for number in range(5):
        rooms = SimulatedRooms(draws=Draws(seed=number, purpose=TRAINING), decay_secs=(wanted, wanted))
        response, name = rooms.response(number)
        assert (response[0], len(response), response.dtype) == (1.0, round(wanted * 16_000), np.float32)
        assert name == f"a simulated room, {wanted:.2f} s"
        found.append(decay_secs(response))
    assert np.mean(found) == pytest.approx(wanted, rel=0.1)


def test_a_room_is_the_same_every_time_and_another_number_another_room():
    def response(seed, number):
        return SimulatedRooms(draws=Draws(seed=seed, purpose=TRAINING), decay_secs=(0.2, 0.2)).response(number)[0]

    np.testing.assert_array_equal(response(0, 7), response(0, 7))
    assert not np.allclose(response(0, 7), response(0, 8)) and not np.allclose(response(0, 7), response(1, 7))


def test_a_farther_mouth_is_more_reverberant():
    noise = white(4800, level=1.0)
    energies = []
    for distance in (0.0, 0.5, 0.99):
        units = np.array([0.5, 0.5, 0.5, 0.0, 0.5, 0.5, 0.95, 0.5, 0.5, distance])
        response = simulate_room(units, noise, decay_secs=0.3)
        energies.append(float(np.square(response[1:]).sum()))
    # 0.2, 0.77 and 3 m in 75 cubic meters, whose critical distance is 0.9 m; first reflections come on top.
    assert energies[0] < 0.1 and 0.7 < energies[1] < 1.5 and 10 < energies[2] < 20


def test_reverberation_keeps_length_and_alignment():
    augmenter = make_augmenter(room_prob=1.0)
    click = np.zeros(16_000, np.float32)
    click[5000] = 0.5
    found = augmenter.apply(click, epoch=0, members=(0,))
    assert found.shape == click.shape
    assert np.abs(found[:5000]).max() < 1e-6 and found[5000] == pytest.approx(0.5, abs=1e-6)
    assert np.abs(found[5001:]).max() > 0.01


def test_a_recorded_response_is_aligned_at_its_peak_resampled_and_of_one_channel(tmp_path):
    response = np.zeros((8000, 2))
    response[1000, 0], response[1400, 0], response[3000, 1] = -0.8, 0.4, 0.9
    soundfile.write(tmp_path / "a.wav", response, 32_000)
    rooms = RecordedRooms(AudioFiles([str(tmp_path / "a.wav")], root=str(tmp_path)))
    found, name = rooms.response(0)
    assert name == "a.wav" and found[0] == 1.0 and len(found) == 3500
    assert int(np.abs(found[50:]).argmax()) + 50 == 200 and found[200] == pytest.approx(-0.5, abs=0.05)
    with pytest.raises(InputError, match="^b.wav is silent: remove it from the impulse responses$"):
        align_response(np.zeros(100, np.float32), "b.wav")


def test_a_response_that_cannot_be_read_is_reported_and_another_taken(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF no audio")
    click = np.zeros(800)
    click[0] = 0.9
    soundfile.write(tmp_path / "b.wav", click, 16_000)
    augmenter = make_augmenter(room_prob=1.0, room_source=str(tmp_path))
    bad = {}
    for epoch in range(20):
        waveform = white(1000, seed=epoch)
        found = augmenter.apply(waveform, epoch=epoch, members=(0,), on_bad=bad.__setitem__)
        np.testing.assert_allclose(found, waveform, atol=1e-6)
    assert list(bad) == ["a.wav"] and "a.wav" in bad["a.wav"]
    (tmp_path / "b.wav").unlink()
    with pytest.raises(
        InputError, match=r"^augment.room_source=\S+: none of the first 1 of 1 recordings can be read: "
    ):
        make_augmenter(room_prob=1.0, room_source=str(tmp_path))


def test_responses_that_all_become_unreadable_are_one_line(tmp_path):
    soundfile.write(tmp_path / "a.wav", white(100), 16_000)
    augmenter = make_augmenter(room_prob=1.0, room_source=str(tmp_path))
    (tmp_path / "a.wav").unlink()
    with pytest.raises(
        InputError, match=r"^augment.room_source: none of 1 impulse responses can be read; the last one: "
    ):
        augmenter.apply(white(1000), epoch=0, members=(0,))
