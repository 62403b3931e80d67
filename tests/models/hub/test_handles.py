"""Handles of TensorFlow Hub where it has moved: the line says what to type instead."""

import pytest

from models.hub import model as hub_model
from models.weights.kaggle import kaggle_name
from tests.helpers.hub_servers import serving

PATH = "/vasudevgupta7/wav2vec2/1"
PAGE = b"<!doctype html><title>Kaggle Models</title>"


@pytest.mark.parametrize(
    "answers",
    [
        {PATH: (403, {}, b"forbidden")},
        {PATH: (404, {}, b"")},
        {PATH: (302, {"Location": "/models"}, b""), "/models": (200, {"Content-Type": "text/html"}, PAGE)},
        {PATH: (301, {"Location": "/models"}, b""), "/models": (403, {}, b"")},
    ],
    ids=["403", "404", "redirect to a page", "redirect to 403"],
)
def test_a_handle_that_tfhub_dev_no_longer_answers_names_the_kaggle_model(monkeypatch, tmp_path, answers):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    with serving() as server:
        server.answers = answers
        # This server stands for tfhub.dev.
        monkeypatch.setattr(
            hub_model, "kaggle_name", lambda url: kaggle_name(url.replace(server.url, "https://tfhub.dev"))
        )
        with pytest.raises(ValueError) as caught:
            hub_model._load_layer(f"{server.url}{PATH}")
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{server.url}{PATH}: cannot be loaded (")
    assert "try model.hub_handle=kaggle://vasudevgupta7/wav2vec2/tensorFlow2/wav2vec2/1" in message
    assert message.endswith("or download it by hand, unpack it and give the folder")
