"""A folder of --mode=export, read back."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.inference.export.saved_model import ExportCheck, build_export, export
from engine.inference.exported import ExportedModel, read_export_fields
from models.ctc.greedy import greedy_decode_spans
from tests.engine.inference.export.test_saved_model import Letters, rows
from tests.helpers.engine_toys import ToyModel


@pytest.fixture(scope="module")
def model():
    return ToyModel(seed=4)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    target = tmp_path_factory.mktemp("export") / "model"
    exported = build_export(
        model=model, tokenizer=Letters(), decoder=greedy_decode_spans, receptive_field=4, hop_samples=4
    )
    fields = {"sample_rate": 16_000}
    check = ExportCheck(3, 0.25)
    export(exported=exported, output=target, fields=fields, card="# card\n", tokenizer=Letters(), check=lambda _: check)
    return target


def test_the_exported_model_behind_the_call_of_the_live_one(model, folder):
    waveform, lengths = rows()
    loaded = ExportedModel(folder)
    np.testing.assert_allclose(loaded(waveform, lengths), model(waveform, lengths), atol=1e-5)
    assert loaded.output_lengths(tf.constant(lengths)).numpy().tolist() == [50, 30, 0]
    with pytest.raises(ValueError, match="cannot be trained"):
        loaded(waveform, lengths, training=True)


def test_the_folder_says_what_it_is(folder):
    assert read_export_fields(folder) == {
        "sample_rate": 16_000,
        "checked": {"num_recordings": 3, "largest_difference": 0.25},
    }
    assert (folder / "README.md").read_text() == "# card\n"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert read_export_fields(folder.parent) is None
    with pytest.raises(ValueError, match="not a model written by"):
        ExportedModel(folder.parent)


def test_fields_of_an_earlier_export_have_their_new_names(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "export.json").write_text('{"text_style": "none", "sample_rate": 16000}')
    assert read_export_fields(tmp_path) == {"text_normalization": "none", "sample_rate": 16_000}


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"text_normalization": "\xff"}', b"[" * 100_000, b'{"a": "\\ud800"}']
)
def test_damaged_fields_are_one_line_with_the_file(tmp_path, content):
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "export.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"export\.json .*; export the model again$") as caught:
        read_export_fields(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
