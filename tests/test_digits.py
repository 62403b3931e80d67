"""configs/digits.py: who is held out, and whether synthetic voices are mixed in."""

from __future__ import annotations

import pytest

from configs import digits
from engine.config import config_file, early_checks
from engine.config.field_flags import FlagError


@pytest.mark.parametrize(
    ("argument", "folder", "speaker"),
    [
        ("corpora/fsdd", "corpora/fsdd", "yweweler"),
        ("fsdd,george", "fsdd", "george"),
        ("fsdd, george, runs/synthetic", "fsdd", "george"),
        ("fsdd,,runs/synthetic", "fsdd", "yweweler"),
    ],
)
def test_one_speaker_evaluates_and_never_trains(argument, folder, speaker):
    config = digits.get_config(argument)
    assert config.data.train.exclude_speakers == (speaker,)
    assert {one.speakers for one in config.data.eval.values()} == {(speaker,)}
    assert {one.input for one in (config.data.train, *config.data.eval.values())} == {f"{folder}/manifest.jsonl"}


def test_synthetic_digits_train_where_the_command_names_them():
    data = digits.get_config("fsdd,george,runs/synthetic").data
    assert data.more_train.synthetic.input == "runs/synthetic"
    # By hours, whatever they have: one part of synthetic audio to two of recordings.
    assert (data.sampling_alpha, data.train.weight, data.more_train.synthetic.weight) == (0.0, 1.0, 0.5)


def test_the_same_command_means_the_same_training_whatever_folders_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("fsdd", "fsdd,george", "fsdd,george,runs/digits-corpus")
    before = [digits.get_config(one).to_dict() for one in arguments]
    (tmp_path / "runs/digits-corpus/train").mkdir(parents=True)
    assert [digits.get_config(one).to_dict() for one in arguments] == before
    assert [sorted(one["data"]["more_train"]) for one in before] == [[], [], ["synthetic"]]


def test_a_missing_synthetic_corpus_is_one_line_with_the_command_that_makes_it(tmp_path):
    (tmp_path / "manifest.jsonl").touch()
    config = digits.get_config(f"{tmp_path},,{tmp_path}/synthetic")

    def check():
        presets = [config.model.preset]
        early_checks.check_run(
            config.to_dict(), mode="train", workdir=str(tmp_path / "run"), checkpoint="", presets=presets
        )

    with pytest.raises(ValueError, match=r"^data\.more_train\.synthetic\.input=.*: no such corpus") as caught:
        check()
    assert str(caught.value).endswith(
        f"; make it with: python -m data.synthetic --output={tmp_path}/synthetic --num_train=3600 --sentence_ratio=0"
    )
    assert "\n" not in str(caught.value)
    (tmp_path / "synthetic").mkdir()
    check()


def test_a_part_too_many_is_refused():
    with pytest.raises(FlagError, match="'a,b,c,d' has more than three parts: give FOLDER,SPEAKER,SYNTHETIC"):
        config_file.load_config("configs/digits.py:a,b,c,d")
