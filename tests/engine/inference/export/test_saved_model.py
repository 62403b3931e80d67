"""The exported recognizer against NumPy, against the live model, and against damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from data.audio.decoding import normalize_waveform
from engine.inference.export.saved_model import ExportCheck, build_export, compare, export, normalize_rows
from engine.inference.serving.tf_serving_json import format_answer, parse_request
from models.ctc.greedy import greedy_decode_spans
from tests.helpers.engine_toys import ToyModel

PIECES = ("", " ", "a", "b", "ß", "")  # as many as the toy has tokens


class Letters:
    token_strings = PIECES
    num_tokens = len(PIECES)
    blank_id = 0

    def save(self, path):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(dict(zip(map(str, range(6)), range(6), strict=True)), file)


@pytest.fixture(scope="module")
def model():
    return ToyModel(seed=4)


def build(model):
    return build_export(model=model, tokenizer=Letters(), decoder=greedy_decode_spans, receptive_field=4, hop_samples=4)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    target = tmp_path_factory.mktemp("export") / "deep" / "model"
    (target.parent / ".exporting-model-abcd_f12/model").mkdir(parents=True)  # a killed process has left it
    (target.parent / ".exporting-model-b-abcd_f12").mkdir()  # and another is at work here
    export(
        exported=build(model),
        output=target,
        fields={"sample_rate": 16_000},
        card="# card\n",
        tokenizer=Letters(),
        check=lambda written: ExportCheck(3, 0.25),
    )
    return target


def rows(num_samples=200):
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (3, num_samples)).astype(np.float32), np.array([num_samples, 121, 0], np.int32)


def test_normalization_is_that_of_the_data():
    waveform, lengths = rows()
    waveform[1, 121:] = 9.0  # padding of any value
    found = normalize_rows(tf.constant(waveform), tf.constant(lengths)).numpy()
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(found[row, :length], normalize_waveform(waveform[row, :length]), atol=1e-6)
        assert not found[row, length:].any()


def test_signature_says_what_the_live_model_says(model, folder):
    waveform, lengths = rows()
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = {key: value.numpy() for key, value in serve(waveform=waveform, lengths=lengths).items()}
    texts = []
    for row, length in enumerate(lengths):
        if not length:
            texts.append("")
            continue
        normalized = normalize_waveform(waveform[row, :length])[np.newaxis, : length // 4 * 4]
        logits = model(tf.constant(normalized), tf.constant([length]))
        np.testing.assert_allclose(found["logits"][row, : length // 4], logits[0], atol=1e-5)
        decoded = greedy_decode_spans(logits, tf.constant([length // 4]))
        count = int(decoded.num_tokens[0])
        tokens = decoded.tokens[0, :count].numpy()
        texts.append(" ".join("".join(PIECES[token] for token in tokens).split()))
        assert found["num_tokens"][row] == count
        assert [token.decode() for token in found["tokens"][row]][:count] == [PIECES[token] for token in tokens]
        np.testing.assert_allclose(found["token_starts"][row, :count], decoded.start_frames[0, :count] * 4 / 16_000)
        np.testing.assert_allclose(found["token_ends"][row, :count], decoded.end_frames[0, :count] * 4 / 16_000)
        np.testing.assert_allclose(found["token_confidences"][row, :count], decoded.probs[0, :count], rtol=1e-5)
        said = [float(p) for token, p in zip(tokens, decoded.probs[0], strict=False) if PIECES[token].strip()]
        np.testing.assert_allclose(found["confidence"][row], np.exp(np.mean(np.log(said))), rtol=1e-4)
    assert [text.decode("utf-8") for text in found["text"]] == texts
    assert "ß" in texts[0] and " " in texts[0]
    assert found["num_frames"].tolist() == [50, 30, 0] and found["confidence"][2] == 0


@pytest.mark.parametrize("by_rows", [True, False])
def test_tensorflow_servings_json_goes_in_and_comes_out(folder, by_rows):
    """What TensorFlow Serving makes of a request: dense tensors of the signature's types, by the signature's names."""
    waveform, lengths = rows()
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    if by_rows:
        pairs = zip(waveform.tolist(), lengths.tolist(), strict=True)
        sent = json.dumps({"instances": [{"waveform": row, "lengths": length} for row, length in pairs]})
        instances = json.loads(sent)["instances"]
        columns = {name: [instance[name] for instance in instances] for name in instances[0]}
    else:
        sent = json.dumps({"inputs": {"waveform": waveform.tolist(), "lengths": lengths.tolist()}})
        columns = json.loads(sent)["inputs"]
    specs = serve.structured_input_signature[1]
    assert set(columns) == set(specs) == {"waveform", "lengths"}
    found = serve(**{name: tf.constant(values, specs[name].dtype) for name, values in columns.items()})
    # Batch major, as "predictions" wants it, and strings that are UTF-8.
    assert all(value.shape[0] == 3 for value in found.values())
    outputs = {name: value.numpy() for name, value in found.items()}
    answer = json.loads(json.dumps(format_answer(outputs, by_rows=by_rows), allow_nan=False))
    wanted = [text.decode() for text in serve(waveform=waveform, lengths=lengths)["text"].numpy()]
    texts = [row["text"] for row in answer["predictions"]] if by_rows else answer["outputs"]["text"]
    assert texts == wanted and len(texts[0]) > 1 and texts[2] == ""
    mine = parse_request(sent.encode(), max_rows=3, max_samples=16_000)
    assert (mine.waveform == waveform).all() and (mine.lengths == lengths).all()


def test_a_row_too_short_for_a_frame_is_silence(folder):
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = serve(waveform=tf.zeros([1, 2]), lengths=tf.constant([2]))
    assert (found["text"].numpy().tolist(), found["num_frames"].numpy().tolist()) == ([b""], [0])


def test_a_process_with_tensorflow_alone_loads_it(folder, tmp_path):
    waveform, lengths = rows()
    np.savez(tmp_path / "rows.npz", waveform=waveform, lengths=lengths)
    program = (
        "import sys, numpy as np, tensorflow as tf\n"
        f"rows = np.load({str(tmp_path / 'rows.npz')!r})\n"
        f"serve = tf.saved_model.load({str(folder)!r}).signatures['serving_default']\n"
        "print([t.decode() for t in serve(waveform=rows['waveform'], lengths=rows['lengths'])['text'].numpy()])\n"
        "print(sorted({'engine', 'models', 'data', 'tf_keras', 'orbit'} & set(sys.modules)))\n"
    )
    # As a stranger's process: with our variable TensorFlow itself would import tf_keras.
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    texts = [text.decode() for text in serve(waveform=waveform, lengths=lengths)["text"].numpy()]
    assert done.stdout.splitlines() == [str(texts), "[]"]


def test_what_a_killed_process_left_is_cleared_away_and_what_another_writes_is_not(folder):
    assert sorted(path.name for path in folder.parent.iterdir()) == [".exporting-model-b-abcd_f12", "model"]


def test_a_folder_in_use_is_left_alone(model, folder):
    with pytest.raises(ValueError, match="is not empty"):
        export(
            exported=build(model),
            output=folder,
            fields={},
            card="",
            tokenizer=Letters(),
            check=lambda _: ExportCheck(1, 0.0),
        )


def test_an_export_that_reads_otherwise_is_not_written(model, tmp_path):
    waveform = rows()[0][0]

    def check(folder):
        return compare(
            folder, [("one", waveform)], read=lambda x: ("other", np.zeros([50, 6], np.float32)), precision="float32"
        )

    with pytest.raises(ValueError, match="transcribes one as .* the trained one as 'other'"):
        export(exported=build(model), output=tmp_path / "out", fields={}, card="", tokenizer=Letters(), check=check)
    assert list(tmp_path.iterdir()) == []


def test_comparison(model, folder):
    waveform = rows()[0][0]
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = serve(waveform=waveform[np.newaxis], lengths=tf.constant([200]))
    text, logits = found["text"].numpy()[0].decode(), tf.nn.log_softmax(found["logits"][0]).numpy()
    result = compare(folder, [("one", waveform)] * 2, read=lambda x: (text, logits + 1e-3), precision="float32")
    assert (result.num_recordings, result.largest_difference) == (2, pytest.approx(1e-3, rel=0.01))
    for bad in (logits + 0.01, logits * np.nan):
        with pytest.raises(ValueError, match="log-probabilities differ by"):
            compare(folder, [("one", waveform)], read=lambda x, bad=bad: (text, bad), precision="float32")
    with pytest.raises(ValueError, match="no recordings to check"):
        compare(folder, [], read=lambda x: (text, logits), precision="float32")
