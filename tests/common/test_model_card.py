"""Model cards as the Hugging Face Hub reads them."""

import json

import pytest
from huggingface_hub import ModelCard

from common.json_files import MalformedFileError
from common.model_card import Evaluation, compose_card, read_evaluations

ENGLISH = ["<pad>", "|", "'", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
EVALUATIONS = [Evaluation("dev_clean", 0.034567, 0.0123, 1000, 50), Evaluation('"odd": name #1', 1.25, 0.5, 10, 2)]


def compose(**fields):
    given = {
        "name": "my-model", "library": "transformers", "tags": ["hubert"], "tokens": ENGLISH, "init": "",
        "evaluations": [], "summary": ["A model."], "usage": ["Call it."], "more": {"Config": ["x"]},
    }  # fmt: skip
    return compose_card(**{**given, **fields})


def test_the_hub_reads_the_metadata_and_the_results_of_a_card():
    card = ModelCard(compose(evaluations=EVALUATIONS, init="hf://facebook/wav2vec2-base@main"))
    data = card.data
    assert (data.license, data.language, data.library_name) == ("unknown", ["en"], "transformers")
    assert (data.pipeline_tag, data.base_model) == ("automatic-speech-recognition", "facebook/wav2vec2-base")
    assert data.tags == ["automatic-speech-recognition", "speech", "hubert"]
    assert data.metrics == ["wer", "cer"]
    assert data.model_name == "my-model"
    found = {(result.dataset_name, result.metric_type): result.metric_value for result in data.eval_results}
    assert found == {
        ("dev_clean", "wer"): 3.457, ("dev_clean", "cer"): 1.23,
        ('"odd": name #1', "wer"): 125.0, ('"odd": name #1', "cer"): 50.0,
    }  # fmt: skip
    assert {result.task_type for result in data.eval_results} == {"automatic-speech-recognition"}


def test_what_is_not_known_is_not_claimed():
    text = compose(tokens=["<pad>", "|", "a", "ñ"])
    metadata = ModelCard(text).data.to_dict()
    assert metadata["language"] == ["und"]
    assert not {"base_model", "metrics", "model-index"} & metadata.keys()
    assert "Not measured in the run that it comes from." in text
    assert ModelCard(compose(init="runs/other")).data.base_model is None


def test_the_sections_follow_the_metadata():
    text = compose(evaluations=EVALUATIONS)
    assert "---\n\n# my-model\n\nA model.\n\n## Usage\n\nCall it.\n\n## Error rates\n\n| set |" in text
    assert "| dev_clean | 3.46 % | 1.23 % | 1000 | 50 |" in text
    assert text.endswith("\n\n## Config\n\nx\n")


def test_the_last_evaluation_of_each_set_at_an_update_counts(tmp_path):
    line = {"step": 20, "split": "dev", "wer": 0.5, "cer": 0.25, "num_words": 8.0, "num_utterances": 2}
    lines = [{**line, "wer": 0.9}, line, {**line, "step": 10, "split": "other"}, {"step": 20, "split": "train"}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(found) + "\n" for found in lines) + '{"step": 20, "spl')
    assert read_evaluations(str(tmp_path), 20) == [Evaluation("dev", 0.5, 0.25, 8, 2)]
    assert read_evaluations(str(tmp_path / "nowhere"), 20) == []
    path.write_text('{"step": 20,\n{}\n')
    with pytest.raises(MalformedFileError, match=f"{path}, line 1 is not valid JSON"):
        read_evaluations(str(tmp_path), 20)
    path.write_text(json.dumps({**line, "wer": "low"}) + "\n")
    with pytest.raises(MalformedFileError, match="line 1: 'wer' is "):
        read_evaluations(str(tmp_path), 20)
