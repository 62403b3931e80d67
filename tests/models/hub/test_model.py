"""A SavedModel as acoustic model: equal to the native one, padded, in windows, distributed, frozen, refused."""

from __future__ import annotations

import http.server
import io
import socket
import tarfile
import threading

import numpy as np
import pytest
import tensorflow as tf

from models.hub import model as hub
from models.hub.model import HubForCTC, copy_with_weights
from models.hub_export import export_backbone
from models.wav2vec2.config import preset
from models.wav2vec2.model import Wav2Vec2ForCTC

SIZE = 8_000
NARROW = {
    "conv_dim": (8,) * 3, "hidden_size": 16, "num_heads": 2, "num_layers": 1, "intermediate_size": 24,
    "pos_conv_groups": 4, "layer_drop": 0.0, "vocab_size": 7,
}  # fmt: skip


def narrow_model():
    return Wav2Vec2ForCTC(config=preset("tiny", **NARROW))


@pytest.fixture(scope="module")
def native():
    return narrow_model()


@pytest.fixture(scope="module")
def folders(native, tmp_path_factory):
    """A SavedModel of each kind: (fixed number of samples, attention mask)."""
    root = tmp_path_factory.mktemp("hub")
    kinds = {(fixed, mask): root / f"{fixed}-{mask}" for fixed in (True, False) for mask in (True, False)}
    for (fixed, mask), folder in kinds.items():
        export_backbone(native.backbone, folder, num_samples=SIZE if fixed else 0, attention_mask=mask)
    return kinds


def hub_model(folder, native, **fields):
    model = HubForCTC(handle=str(folder), vocab_size=7, **fields)
    for variable, value in zip(model.head.variables, native.head.variables, strict=True):
        variable.assign(value)
    return model


def rows(*lengths, width):
    """Noise with noise behind each row's end: what lies there must not count."""
    rng = np.random.default_rng(0)
    waveforms = np.stack([rng.normal(size=width) for _ in lengths]).astype(np.float32)
    return tf.constant(waveforms), tf.constant(lengths)


def keyed(model, num_rows):
    return model.make_random(seed=0, update=tf.constant(1), row_ids=tf.range(num_rows))


@pytest.mark.parametrize("kind", [(True, True), (False, True), (False, False)])
def test_logits_equal_those_of_the_native_model_for_every_row(kind, folders, native):
    model = hub_model(folders[kind], native)
    waveform, lengths = rows(7_000, 3_333, 0, width=7_600)
    found, expected = model(waveform, lengths).numpy(), native(waveform, lengths).numpy()
    frames = native.output_lengths(lengths).numpy()
    np.testing.assert_array_equal(model.output_lengths(lengths), frames)
    assert frames.tolist() == [20, 8, 0]
    assert np.isfinite(found).all()
    for row in (0, 1):
        assert np.abs(expected[row]).max() > 0.01
        np.testing.assert_allclose(found[row, : frames[row]], expected[row, : frames[row]], atol=1e-5)


def test_a_fixed_number_of_samples_means_zeros_up_to_it_in_any_batch(folders, native):
    model = hub_model(folders[True, False], native)
    waveform, lengths = rows(7_000, 3_333, width=9_600)  # a bucket may be wider than the signature
    padded = np.zeros([1, SIZE], np.float32)
    padded[0, :3_333] = waveform[1, :3_333]
    expected = native(tf.constant(padded), tf.constant([SIZE])).numpy()[0]
    alone = model(waveform[1:, :3_333], lengths[1:]).numpy()[0]
    together = model(waveform, lengths).numpy()[1]
    for found in (alone, together):
        np.testing.assert_allclose(found[:8], expected[:8], atol=1e-5)


def test_two_views_and_layers_between_are_refused_in_one_line(folders, native):
    model = hub_model(folders[False, True], native)
    waveform, lengths = rows(7_000, 3_333, width=7_600)
    (logits,) = model.training_logits(waveform, lengths, random=keyed(model, 2))
    np.testing.assert_array_equal(logits.shape[::2], [2, 7])
    assert model.explain_unsupported(num_views=1, layers=()) == ""
    two = model.make_random(seed=0, update=tf.constant(1), row_ids=tf.range(2), num_views=2)
    with pytest.raises(ValueError, match="a SavedModel draws its masks itself"):
        model.training_logits(waveform, lengths, random=two)
    with pytest.raises(ValueError, match="a SavedModel returns no outputs of layers before its last one"):
        model.training_logits(waveform, lengths, random=keyed(model, 2), layers=(1,))


def test_rows_too_long_for_a_fixed_number_are_refused_in_training(folders, native):
    model = hub_model(folders[True, True], native)
    assert model.max_training_samples == SIZE
    waveform, lengths = rows(8_001, width=8_960)
    with pytest.raises(ValueError, match=r"a row of 8001 samples is longer than the 8000 .*max_duration_secs=0.5"):
        model(waveform, lengths, training=True, random=keyed(model, 1))
    with pytest.raises(tf.errors.InvalidArgumentError, match="longer than the 8000"):
        tf.function(lambda: model(waveform, lengths, training=True, random=keyed(model, 1)))()
    fits = model(waveform, lengths - 1, training=True, random=keyed(model, 1))
    assert fits.shape == [1, native.config.num_frames(SIZE), 7]
    with pytest.raises(ValueError, match="needs random"):
        model(waveform, lengths - 1, training=True)


class Local(tf.Module):
    """A published-looking SavedModel, 320 samples a frame, whose states look at 400 samples and no further."""

    variables = None
    trainable_variables = None

    def __init__(self, size):
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(2).normal(size=[400, 1, 3]).astype(np.float32) / 20)
        self.variables = self.trainable_variables = [self.kernel]
        for training in (True, False):
            self.__call__.get_concrete_function(tf.TensorSpec([None, size], tf.float32), None, training)

    @tf.function
    def __call__(self, speech, attention_mask=None, training=False):
        return tf.nn.conv1d(speech[:, :, tf.newaxis], self.kernel, stride=320, padding="VALID")


def test_longer_audio_is_transcribed_in_windows_that_join_without_a_seam(tmp_path):
    local = Local(SIZE)
    tf.saved_model.save(local, str(tmp_path))
    model = HubForCTC(handle=str(tmp_path), vocab_size=5)
    waveform, lengths = rows(60_000, 8_001, 500, width=60_320)
    whole = tf.nn.conv1d(waveform[:, :, tf.newaxis], local.kernel, stride=320, padding="VALID")
    expected, found = model.head(whole).numpy(), tf.function(model)(waveform, lengths).numpy()
    frames = model.output_lengths(lengths).numpy()
    assert frames.tolist() == [187, 24, 1]
    for row, count in enumerate(frames):
        np.testing.assert_allclose(found[row, :count], expected[row, :count], atol=1e-5)


def test_another_stride_without_output_lengths_is_refused(tmp_path):
    class Other(Local):
        @tf.function
        def __call__(self, speech, attention_mask=None, training=False):
            return tf.nn.conv1d(speech[:, :, tf.newaxis], self.kernel, stride=160, padding="VALID")

    tf.saved_model.save(Other(SIZE), str(tmp_path))
    with pytest.raises(ValueError, match="makes 48 frames of 8000 samples where wav2vec 2.0 makes 24"):
        HubForCTC(handle=str(tmp_path), vocab_size=5)


def test_freezing_takes_the_convolutions_by_name(folders, native, tmp_path):
    model = hub_model(folders[False, True], native, freeze_feature_encoder=True)
    trained = {variable.name for variable in model.trainable_variables}
    everything = {variable.name for variable in model.variables}
    assert {name for name in everything - trained if "feature_encoder" not in name} == set()
    assert not any("feature_encoder" in name for name in trained)
    assert {variable.name for variable in model.head_variables} < trained
    assert len(model.pretrained_variables) == len(everything) - 2 == len(native.backbone.variables)
    tf.saved_model.save(Local(SIZE), str(tmp_path))
    with pytest.raises(ValueError, match="has no variables named feature_encoder or feature_extractor to freeze"):
        HubForCTC(handle=str(tmp_path), vocab_size=5, freeze_feature_encoder=True)


def test_half_precision_is_the_heads_alone(folders, native):
    waveform, lengths = rows(7_000, width=7_040)
    logits = hub_model(folders[True, True], native, precision="mixed_bfloat16")(waveform, lengths)
    assert logits.dtype == tf.float32
    exact = hub_model(folders[True, True], native)(waveform, lengths)
    difference = np.abs(logits - exact).max()
    assert 0 < difference < 0.02


def test_a_folder_without_a_saved_model_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^\S+: no saved_model.pb there \(model.hub_handle\); give a URL or a folder"):
        HubForCTC(handle=str(tmp_path), vocab_size=5)
    (tmp_path / "saved_model.pb").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"^\S+: cannot be loaded \(.*\); check model.hub_handle$"):
        HubForCTC(handle=str(tmp_path), vocab_size=5)


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as broken hubs do, by the path asked for."""

    def do_GET(self):
        if self.path.startswith("/silent"):
            self.server.over.wait(20)
            return
        if self.path.startswith("/absent"):
            self.send_error(404)
            return
        content = {"/page": b"<html>moved</html>", "/cut": ARCHIVE[: len(ARCHIVE) // 2]}[self.path.partition("?")[0]]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def make_archive():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        content = np.random.default_rng(0).bytes(20_000)
        entry = tarfile.TarInfo("saved_model.pb")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = make_archive()


def test_a_url_that_gives_no_model_is_one_line_and_no_hang(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(hub, "_TIMEOUT_SECS", 0.5)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.over = threading.Event()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            for what in ("silent", "absent", "page", "cut"):
                handle = f"http://127.0.0.1:{server.server_port}/{what}"
                with pytest.raises(ValueError) as caught:
                    HubForCTC(handle=handle, vocab_size=5)
                message = str(caught.value)
                assert message.startswith(f"{handle}: cannot be loaded (") and "\n" not in message
                assert message.endswith("or download it by hand, unpack it and give the folder")
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
    with pytest.raises(ValueError, match="cannot be loaded"):
        HubForCTC(handle="nothing://of/this/kind", vocab_size=5)
    assert socket.getdefaulttimeout() is None


def test_weights_of_another_model_do_not_get_into_a_copy(folders, tmp_path):
    other = HubForCTC(handle=str(folders[True, True]), vocab_size=5)
    other.backbone = tf.Module()
    other.backbone.kernel = tf.Variable([1.0])
    path = tf.train.Checkpoint(model=other).write(str(tmp_path / "checkpoints/ckpt-3"))
    # A folder of checkpoints is enough, without TensorFlow's list of them.
    for checkpoint in (path, str(tmp_path / "checkpoints"), str(tmp_path)):
        with pytest.raises(ValueError, match="ckpt-3: not from a run that started from"):
            copy_with_weights(str(folders[True, True]), checkpoint, tmp_path / "copy")
    with pytest.raises(ValueError, match="no checkpoint; give WORKDIR/best"):
        copy_with_weights(str(folders[True, True]), str(tmp_path / "none"), tmp_path / "copy")
