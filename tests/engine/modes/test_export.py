"""--mode=export between its arguments and the folder; a whole run's is in tests/test_run.py."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import soundfile
import tensorflow as tf
import tf_keras

from configs import base
from engine.checkpointing.best import BestCheckpoint
from engine.config import builders
from engine.inference.export import portable
from engine.inference.export.portable import load_portable
from engine.inference.export.portable_check import count_changed_words
from engine.inference.window_length import default_window_secs
from engine.modes import export, transcribe
from models.ctc.alignment import greedy_spans
from models.ctc.greedy import greedy_decode_spans
from models.wav2vec2.model import build_model
from tests.engine.inference.export.test_saved_model import Letters
from tests.engine.inference.test_loading import make_parts, trained  # noqa: F401 - a fixture
from tests.helpers.engine_toys import NUM_SAMPLES
from tests.helpers.full_disk import small_files_only
from tests.helpers.saved_graphs import functions_to_compile, read_graph

WAVEFORM = np.random.default_rng(0).uniform(-1, 1, NUM_SAMPLES).astype(np.float32)


class Set:
    """Two rows, one of which fills up."""

    utterance_ids = {7: "seven"}
    references = {7: "said so"}

    def dataset(self, context):
        batch = {
            "waveform": np.stack([WAVEFORM, WAVEFORM]),
            "waveform_lengths": np.array([NUM_SAMPLES, 0], np.int32),
            "weight": np.array([1.0, 0.0], np.float32),
            "utterance_index": np.array([7, -1]),
        }
        return tf.data.Dataset.from_tensors(batch)


@pytest.fixture
def parts():
    def normalize(waveform):
        return (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)

    return dataclasses.replace(
        make_parts(),
        build_tokenizer=lambda path: Letters(),
        span_decoder=greedy_spans,
        span_graph_decoder=greedy_decode_spans,
        normalize_waveform=normalize,
    )


def test_a_run_becomes_a_folder_that_transcribes_alike(trained, parts, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(builders, "build_eval_data", lambda *arguments: {"dev": Set()})
    workdir, _ = trained
    output = tmp_path / "exported"
    assert export.run(parts=parts, checkpoint=workdir, inputs=[], output=str(output)) == 0
    assert "parameters of update 1; 1 recordings read as by the trained model" in capsys.readouterr().out
    fields = json.loads((output / "export.json").read_text())
    assert (fields["step"], fields["samples_per_frame"], fields["on_rate_mismatch"]) == (1, 4, "refuse")
    assert fields["changed"] == {"num_words": 1, "num_different_words": 0}
    assert fields["checked"]["num_recordings"] == 1
    # The config allows rows of 20 s from random weights; nothing else is recorded.
    assert fields["window_secs"] == 20.0 == default_window_secs(str(output)) == default_window_secs(workdir)
    (tmp_path / "a.wav").touch()
    texts = []
    for checkpoint in (workdir, str(output)):
        arguments = {"inputs": [str(tmp_path / "a.wav")], "output": str(tmp_path / "out.txt")}
        assert transcribe.run(parts=parts, checkpoint=checkpoint, **arguments) == 0
        texts.append((tmp_path / "out.txt").read_text())
    assert texts[0] == texts[1] and len(texts[0]) > 1


def test_the_snippet_of_the_card_runs(trained, parts, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(builders, "build_eval_data", lambda *arguments: {"dev": Set()})
    output = tmp_path / "exported"
    export.run(parts=parts, checkpoint=trained[0], inputs=[], output=str(output))
    samples = np.arange(-800, 800, 20, dtype=np.int16) * 40
    soundfile.write(output / "a.wav", samples, 16_000)
    monkeypatch.chdir(output)
    (snippet,) = re.findall(r"```python\n(.*?)```", (output / "README.md").read_text(), flags=re.DOTALL)
    capsys.readouterr()
    exec(compile(snippet, "README.md", "exec"), {})
    waveform = (samples / 2**15).astype(np.float32)
    serve = tf.saved_model.load(str(output)).signatures["serving_default"]
    found = serve(waveform=tf.constant(waveform[np.newaxis]), lengths=tf.constant([len(waveform)]))["text"][0]
    assert capsys.readouterr().out == found.numpy().decode() + "\n" != "\n"


def test_other_formats_lie_beside_it_and_the_card_compares_them(trained, parts, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(builders, "build_eval_data", lambda *arguments: {"dev": Set()})
    output = tmp_path / "exported"
    formats = ["tflite_float32"]
    export.run(parts=parts, checkpoint=trained[0], inputs=[], output=str(output), formats=formats)
    assert "model-float32.tflite: 0.0 MB, 0 of " in capsys.readouterr().out
    (found,) = json.loads((output / "export.json").read_text())["formats"]
    assert (found["num_recordings"], found["num_different_words"]) == (1, 0)
    assert found["wer"] == found["trained_wer"] > 0
    path = output / found["file"]
    assert path.stat().st_size == found["num_bytes"]
    assert sorted(tmp_path.glob(".*")) == []
    (tmp_path / "a.wav").touch()
    transcribe.run(
        parts=parts, checkpoint=str(output), inputs=[str(tmp_path / "a.wav")], output=str(tmp_path / "out.txt")
    )
    (waveform,) = parts.stream_audio("a.wav", "refuse")
    ids = load_portable(path, "tflite_float32")(waveform).argmax(-1)
    # As the card says.
    text = "".join(Letters.token_strings[i] for i, before in zip(ids, [-1, *ids], strict=False) if i not in (before, 0))
    assert " ".join(text.split()) == (tmp_path / "out.txt").read_text().strip() != ""
    assert "| model-float32.tflite | 0.0 MB | " in (output / "README.md").read_text()


def test_a_format_that_reads_otherwise_spoils_the_whole_export(trained, parts, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(portable, "convert", lambda folder, name, output: output.touch())
    wrong = np.eye(9, 6, dtype=np.float32)
    monkeypatch.setattr(portable, "load_portable", lambda path, name: lambda waveform: wrong)
    (tmp_path / "a.wav").touch()
    arguments = {"checkpoint": trained[0], "inputs": [str(tmp_path / "a.wav")], "output": str(tmp_path / "exported")}
    with pytest.raises(ValueError, match="onnx changes .* words of the trained .*nothing was written"):
        export.run(parts=parts, formats=["onnx"], **arguments)
    assert not (tmp_path / "exported").exists() and sorted(tmp_path.glob(".*")) == []
    with pytest.raises(ValueError, match="no such format"):
        export.run(parts=parts, formats=["wav"], **arguments)


def test_recordings_of_ones_own_are_read_instead(trained, parts, tmp_path):  # noqa: F811
    (tmp_path / "a.wav").touch()
    output = tmp_path / "exported"
    export.run(parts=parts, checkpoint=trained[0], inputs=[str(tmp_path / "a.wav")], output=str(output))
    assert json.loads((output / "export.json").read_text())["checked"]["num_recordings"] == 1
    with pytest.raises(ValueError, match="exported already"):
        export.run(parts=parts, checkpoint=str(output), inputs=[], output=str(tmp_path / "again"))


def test_a_full_disk_is_one_line_and_leaves_nothing(trained, parts, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(builders, "build_eval_data", lambda *arguments: {"dev": Set()})
    arguments = {"parts": parts, "checkpoint": trained[0], "inputs": [], "output": str(tmp_path / "out")}
    with pytest.raises(ValueError, match="out: cannot be written.*; make room, or name") as told, small_files_only():
        export.run(**arguments)
    assert not re.search(r"\n|function_node|\[Op:", str(told.value))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_output_must_be_named(trained, parts):  # noqa: F811
    with pytest.raises(ValueError, match="--output is empty"):
        export.run(parts=parts, checkpoint=trained[0], inputs=[], output="")


@pytest.mark.slow
def test_no_compiler_is_needed_where_the_export_runs(parts, tmp_path):
    """A wide model's regions and its norm in float64 stay behind: they neither convert nor run in every server."""

    def build(fused_ops):
        return build_model(
            preset="tiny", vocab_size=6, num_layers=1, conv_dim=(16, 16), conv_kernel=(10, 3), conv_stride=(5, 2),
            feature_norm="group", hidden_size=32, num_heads=2, intermediate_size=48, fused_ops=fused_ops,
        )  # fmt: skip

    tf_keras.utils.set_random_seed(0)
    model = build("on")
    config = base.get_small_config()
    config.model.fused_ops = "on"
    config.data.on_rate_mismatch = "refuse"
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config.to_dict()))
    BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=model), directory=run / "best", global_step=tf.Variable(1)
    ).save_if_better(0.1, metric="dev/wer")
    speech = np.random.default_rng(0).uniform(-0.1, 0.3, 4_000).astype(np.float32)
    parts = dataclasses.replace(
        parts,
        build_model=lambda **fields: build(fields["fused_ops"]),
        stream_audio=lambda path, on_rate_mismatch: iter([speech]),
    )
    (tmp_path / "a.wav").touch()
    formats = ["tflite_float32", "onnx"]
    arguments = {"checkpoint": str(run), "inputs": [str(tmp_path / "a.wav")], "output": str(tmp_path / "exported")}
    assert export.run(parts=parts, formats=formats, **arguments) == 0
    graph = read_graph(tmp_path / "exported")
    assert len(graph.library.function) > 3
    assert functions_to_compile(graph) == []
    # The model as it was trained has such parts: what the export leaves out.
    live = tf.function(lambda waveform: model(waveform, tf.constant([4_000]), training=False))
    assert functions_to_compile(live.get_concrete_function(tf.constant(speech[np.newaxis])).graph.as_graph_def())
    wanted = model(tf.constant(parts.normalize_waveform(speech)[np.newaxis]), tf.constant([4_000]))[0].numpy()
    for name in formats:
        found = load_portable(tmp_path / "exported" / portable.FILES[name], name)(speech)
        assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_half_precision_may_change_a_few_words_and_says_so(trained, parts, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Other kernels round otherwise: of 60 words one may differ, two may not; in float32 none."""
    sentence = "twenty words are said so that one of them or two may be heard in another way than they were"
    recordings = [export.Recording(name, WAVEFORM) for name in "abc"]
    other = sentence.replace("heard", "herd")

    def count(*texts, precision):
        return count_changed_words(
            recordings, *texts, allowed=export._DIFFERENT_WORDS[precision], who="it", advice="train"
        )

    assert len(sentence.split()) == 20
    found = count([sentence] * 3, [sentence, other, sentence], precision="mixed_bfloat16")
    assert (found.num_reference, found.num_errors) == (60, 1)
    with pytest.raises(ValueError, match=r"2 of 60 words .*\(2 % are allowed\): b is 'twenty"):
        count([sentence] * 3, [sentence, other, other], precision="mixed_bfloat16")
    with pytest.raises(ValueError, match=r"1 of 60 words .*\(0 % are allowed\): c is"):
        count([sentence] * 3, [sentence, sentence, other], precision="float32")
    monkeypatch.setattr(builders, "build_eval_data", lambda *arguments: {"dev": Set()})
    monkeypatch.setattr(export, "count_changed_words", lambda *texts, **options: found)
    assert export.run(parts=parts, checkpoint=trained[0], inputs=[], output=str(tmp_path / "exported")) == 0
    assert "XLA compiles: 1 of 60 words differ from the run's own" in capsys.readouterr().out
