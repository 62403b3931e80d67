"""Recordings as they come: M4A, WebM, AMR, video and others are read through PyAV wherever audio is read."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import soundfile

pytest.importorskip("av", reason="recordings of other containers are not tried: the extra media is not installed")

from common import audio_kinds
from data.audio import decoder
from data.audio.decoding import load_audio, read_audio, read_header, read_segment
from data.audio.streaming import duration_samples, stream_audio
from data.common.errors import InputError
from data.corpus.manifest import read_utterances
from data.open_corpus import open_source
from engine.inference.inputs import find_audio
from tests.helpers.media import KINDS, sweep, write_kind, write_media


def alike(found: np.ndarray, wanted: np.ndarray) -> float:
    """The correlation at the best shift of at most 0.2 s: encoders put silence in front, or lose their first frame."""
    size = 2 ** int(np.ceil(np.log2(len(found) + len(wanted))))
    products = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(wanted, size)))
    shift = int(np.argmax(np.roll(products, 3_200)[:6_400])) - 3_200
    found, wanted = found[max(shift, 0) :], wanted[max(-shift, 0) :]
    length = min(len(found), len(wanted))
    return float(np.corrcoef(found[:length], wanted[:length])[0, 1])


@pytest.mark.parametrize("ending", KINDS)
def test_every_container_is_decoded_to_what_was_encoded(tmp_path, ending):
    path = write_kind(tmp_path, ending)
    num_samples, rate = read_header(path)
    assert rate == KINDS[ending][2] and num_samples == pytest.approx(2 * rate, abs=rate * 0.15)
    channels, _ = read_audio(path)
    assert channels.shape == (num_samples, 1) and channels.dtype == np.float32
    waveform = load_audio(path)
    assert len(waveform) == duration_samples(path)
    assert alike(waveform, sweep(2.0, 16_000)) > 0.95
    np.testing.assert_array_equal(np.concatenate(list(stream_audio(path, block_secs=0.3))), waveform)
    # From memory, as an upload or the member of a tar.
    again, _ = read_audio("upload", content=path.read_bytes())
    np.testing.assert_array_equal(again, channels)


def test_what_is_stored_without_loss_is_the_same_bit_for_bit(tmp_path):
    path = write_kind(tmp_path, "mkv")
    soundfile.write(tmp_path / "same.flac", (sweep(2.0, 16_000) * 32767).astype(np.int16), 16_000, subtype="PCM_16")
    np.testing.assert_array_equal(read_audio(path)[0], read_audio(tmp_path / "same.flac")[0])


def test_a_segment_of_it_is_the_part_of_the_whole(tmp_path):
    path = write_kind(tmp_path, "m4a")
    whole, rate = read_audio(path)
    part, part_rate = read_segment(path, start=5_000, num_samples=7_000)
    assert part_rate == rate
    np.testing.assert_array_equal(part, whole[5_000:12_000])


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "aac"), ("matroska", "libopus"), ("avi", "pcm_s16le")])
def test_the_sound_of_a_video_is_read_with_its_own_length(tmp_path, ending, codec):
    path = write_media(
        tmp_path / "talk.video", sweep(2.0, 48_000), rate=48_000, container=ending, codec=codec, channels=2, video=True
    )
    num_samples, rate = read_header(path)
    assert num_samples == pytest.approx(2 * rate, abs=0.15 * rate)  # the pictures last four seconds
    assert read_audio(path)[0].shape == (num_samples, 2)
    assert alike(load_audio(path), sweep(2.0, 16_000)) > 0.95


def test_a_video_without_sound_is_one_line(tmp_path):
    import av

    with av.open(str(tmp_path / "silent.mp4"), "w") as file:
        picture = file.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        file.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        file.mux(picture.encode(None))
    with pytest.raises(InputError, match=r"silent.mp4 has no audio stream: leave it out"):
        read_header(tmp_path / "silent.mp4")


@pytest.mark.parametrize("options", [{}, {"movflags": "+faststart"}], ids=["index at the end", "index at the start"])
def test_a_download_that_broke_off_is_named(tmp_path, options):
    path = write_kind(tmp_path, "m4a", options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(InputError, match=r"(cannot be decoded|ends early).*fetch or make it again"):
        read_header(path)
    with pytest.raises(InputError, match=r"(ends early|cannot decode|cannot be decoded)"):
        read_audio(path)


def test_a_header_that_says_less_than_the_file_holds_is_named(tmp_path):
    content = bytearray(write_kind(tmp_path, "m4a", secs=4.0).read_bytes())
    index = content.index(b"mdhd") + 4 + 4 + 12
    said = int.from_bytes(content[index : index + 4], "big")
    content[index : index + 4] = (said // 2).to_bytes(4, "big")
    (tmp_path / "short.m4a").write_bytes(content)
    with pytest.raises(InputError, match=r"short\.m4a holds more audio than its header says \(2\.\d+ s\)"):
        read_header(tmp_path / "short.m4a")


@pytest.mark.parametrize("ending", ["m4a", "webm", "amr", "mkv", "avi"])
def test_damaged_bytes_are_one_line_or_audio_of_the_promised_length(tmp_path, ending):
    content = write_kind(tmp_path, ending, secs=0.5).read_bytes()
    random = np.random.default_rng(0)
    for number in range(30):
        damaged = bytearray(content)
        for place in random.integers(8, len(content), 20):
            damaged[place] = random.integers(256)
        path = tmp_path / f"{number}.{ending}"
        path.write_bytes(damaged[: random.integers(12, len(content))] if number % 3 == 0 else damaged)
        try:
            frames, rate = read_header(path)
            found, again = read_audio(path)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert (len(found), again) == (frames, rate) and np.isfinite(found).all()


def test_what_libsndfile_reads_does_not_come_here(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "MediaFile", None)
    for ending in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(tmp_path / f"a.{ending}", sweep(1.0, 16_000), 16_000)
        assert read_header(tmp_path / f"a.{ending}")[1] == 16_000


def test_without_the_extra_one_line_names_it(tmp_path, monkeypatch):
    path = write_kind(tmp_path, "webm")
    monkeypatch.setattr(audio_kinds.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError) as raised:
        read_header(path)
    assert "which only PyAV reads: pip install -e '.[media]', or convert it, for example ffmpeg" in str(raised.value)


def test_playlists_that_name_other_files_are_not_followed(tmp_path):
    (tmp_path / "secret.wav").write_bytes(b"secret")
    (tmp_path / "list.m4a").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.wav\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.mkv").write_text(f"ffconcat version 1.0\nfile '{tmp_path}/secret.wav'\n")
    for name in ("list.m4a", "list.mkv"):
        with pytest.raises(InputError, match="no header of"):
            read_header(tmp_path / name)


def test_manifests_and_folders_take_them(tmp_path):
    names = [write_kind(tmp_path, ending).name for ending in ("m4a", "webm", "amr")]
    lines = [{"audio_filepath": name, "text": "a", "duration": 2.0} for name in names]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = open_source(format="jsonl", input=tmp_path / "m.jsonl")
    for index in range(3):
        assert len(source.read_waveform(index)) == source.num_samples[index]
    found = read_utterances(format="jsonl", input=tmp_path / "m.jsonl")
    assert [item.duration_conflict for item in found] == ["", "", ""]
    (tmp_path / "m.jsonl").unlink()
    assert [path.rsplit("/", 1)[1] for path in find_audio([str(tmp_path)])] == sorted(names)
