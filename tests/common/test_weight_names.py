import pytest

from common.weight_names import hub_repository, is_weight_name, repository_hint


@pytest.mark.parametrize(
    "name",
    [
        "hf://facebook/wav2vec2-base",
        "hf://a/b@main",
        "kaggle://o/m/tensorFlow2/v/1",
        "https://h/x.tar.gz",
        "http://h/X.ZIP",
    ],
)
def test_names_of_published_weights(name):
    assert is_weight_name(name)


def test_the_repository_of_a_name_has_neither_revision_nor_language():
    for name in ("hf://facebook/mms-1b-all", "hf://facebook/mms-1b-all@main", "hf://facebook/mms-1b-all@main#fra"):
        assert hub_repository(name) == "facebook/mms-1b-all"
    assert hub_repository("hf://facebook/mms-1b-all#fra") == "facebook/mms-1b-all"
    assert hub_repository("runs/a") == hub_repository("kaggle://o/m") == hub_repository("") == ""


@pytest.mark.parametrize(
    "path", ["", "weights/mine", "/a/b.tar.gz", "facebook/wav2vec2-base", "https://tfhub.dev/x/y/1", "gs://b/c.tar.gz"]
)
def test_paths_and_other_addresses(path):
    assert not is_weight_name(path)


def test_a_path_that_may_be_a_model_of_the_hub_is_recognized(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repository_hint("facebook/wav2vec2-base").endswith("write hf://facebook/wav2vec2-base")
    assert repository_hint("/facebook/wav2vec2-base") == repository_hint("a/b/c") == repository_hint("../x") == ""
    (tmp_path / "weights").mkdir()
    assert repository_hint("weights/wav2vec2-base") == ""
