"""--mode=serve between its arguments and the server; a whole process is in tests/test_serving.py."""

from __future__ import annotations

import dataclasses
import http.client
import json
import threading
from types import SimpleNamespace

import pytest
import tensorflow as tf

from configs.base import get_serve
from data.common.page import page_environment
from engine.inference.exported import ExportedModel
from engine.inference.loading import ReadingOptions
from engine.modes import serve, transcribe
from models.ctc.alignment import greedy_spans
from models.ctc.greedy import greedy_decode_spans
from tests.engine.inference.export.test_saved_model import Letters
from tests.engine.inference.test_loading import WAVEFORM, make_parts, trained  # noqa: F401 - a fixture

INSTANCES = {"instances": [{"waveform": (WAVEFORM / 2).tolist(), "lengths": len(WAVEFORM)}]}


class Stop:
    """What a signal would set."""

    within_secs, exit_status, requested = 30.0, 143, False

    def defer(self, **words):
        assert set(words) == {"plan", "at_stake"}


@pytest.fixture
def parts():
    return dataclasses.replace(
        make_parts(),
        build_tokenizer=lambda path: Letters(),
        span_decoder=greedy_spans,
        span_graph_decoder=greedy_decode_spans,
        page_environment=page_environment,
    )


def ask(port, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET" if body is None else "POST", path, body)
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def test_serves_the_text_of_transcribe_until_it_is_stopped(trained, parts, tmp_path, capsys):  # noqa: F811
    workdir, _ = trained
    (tmp_path / "a.wav").touch()
    transcribe.run(
        parts=parts, checkpoint=workdir, inputs=[str(tmp_path / "a.wav")], output=str(tmp_path / "out.jsonl")
    )
    wanted = json.loads((tmp_path / "out.jsonl").read_text())
    capsys.readouterr()
    stop, statuses = Stop(), []
    options = {**get_serve().to_dict(), "port": 0, "name": "toy"}
    thread = threading.Thread(
        target=lambda: statuses.append(serve.run(parts=parts, checkpoint=workdir, options=options, stop=stop)),
        daemon=True,
    )
    thread.start()
    try:
        printed = ""
        for _ in range(600):
            printed += capsys.readouterr().out
            if printed.endswith("\n"):
                break
            thread.join(0.1)
        assert printed.startswith("serving toy on http://127.0.0.1:")
        port = int(printed.rsplit(":", maxsplit=1)[1])
        status, found = ask(port, "/v1/transcribe", b"not empty: the parts read what they like")
        assert status == 200
        assert found == {**{key: wanted[key] for key in wanted if key != "reference"}, "audio_filepath": ""}
        assert ask(port, "/v1/models")[1]["data"][0]["id"] == "toy"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        assert "<title>Earshot: toy</title>" in connection.getresponse().read().decode()
        connection.close()
        assert wanted["reference"] == "said so" and len(found["text"]) > 1
        status, found = ask(port, "/v1/models/toy:predict", json.dumps(INSTANCES))
        assert status == 200 and set(found["predictions"][0]) >= {"text", "confidence", "logits", "token_starts"}
        described = ask(port, "/v1/models/toy/metadata")[1]["metadata"]["signature_def"]["signature_def"]
        waveform = described["serving_default"]["inputs"]["waveform"]
        assert waveform["dtype"] == "DT_FLOAT"
        assert [dim["size"] for dim in waveform["tensor_shape"]["dim"]] == ["-1", "-1"]
        assert described["serving_default"]["outputs"]["text"]["dtype"] == "DT_STRING"
    finally:
        stop.requested = True
        thread.join(30)
    assert statuses == [143]


def test_windows_shorter_than_30_s_do_not_limit_the_rows_of_predictions():
    def longest(max_training_samples=0, **reading):
        model = SimpleNamespace(max_training_samples=max_training_samples)
        transcriber = SimpleNamespace(model=model, window_secs=2.5)
        return serve._longest_row_secs(transcriber, ReadingOptions(**reading))

    assert (longest(), longest(window_secs=8.0)) == (30.0, 8.0)
    assert longest(max_training_samples=246_000) == 15.375


def test_metadata_of_an_export_names_the_same_inputs():
    class Toy(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None, None], name="waveform"), tf.TensorSpec([None], tf.int32, "lengths")]
        )
        def serve(self, waveform, lengths):
            return {"text": tf.strings.as_string(lengths), "logits": waveform}

    class Loaded:
        """As `ExportedModel` keeps it."""

        signatures = {"serving_default": None}

    toy = Toy()
    model = ExportedModel.__new__(ExportedModel)
    model._loaded = Loaded()
    model._loaded.signatures["serving_default"] = toy.serve.get_concrete_function()
    found = serve.signature_metadata(model.signature, name="x", fields={"step": 7})
    assert found["earshot"] == {"step": 7} and found["model_spec"]["name"] == "x"
    described = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert described["inputs"]["lengths"] == {
        "dtype": "DT_INT32", "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "lengths",
    }  # fmt: skip
    assert set(described["outputs"]) == {"logits", "text"}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://A.example,http://localhost:3000", ("https://a.example", "http://localhost:3000")),
    ],
)
def test_origins_are_a_list_with_commas(value, wanted):
    assert serve.build_limits({**get_serve().to_dict(), "cors_origins": value}).cors_origins == wanted


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_pending", 0),
        ("body_timeout_secs", -1.0),
        ("max_body_mb", float("inf")),
        ("max_json_mb", float("nan")),
        ("port", 70_000),
        ("name", "a/b"),
    ],  # fmt: skip
)
def test_an_option_that_cannot_be_is_named(field, value):
    with pytest.raises(ValueError, match=f"^serve.{field}=.*: wanted "):
        serve.build_limits({**get_serve().to_dict(), field: value})
