"""configs/digits.py: who is held out, and when synthetic voices are mixed in."""

from __future__ import annotations

import pytest

from configs import digits


@pytest.mark.parametrize(
    ("argument", "folder", "speaker"), [("corpora/fsdd", "corpora/fsdd", "yweweler"), ("fsdd,george", "fsdd", "george")]
)
def test_one_speaker_evaluates_and_never_trains(argument, folder, speaker):
    config = digits.get_config(argument)
    assert config.data.train.exclude_speakers == (speaker,)
    assert {one.speakers for one in config.data.eval.values()} == {(speaker,)}
    assert {one.input for one in (config.data.train, *config.data.eval.values())} == {f"{folder}/manifest.jsonl"}


def test_synthetic_digits_train_where_there_are_some(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not digits.get_config().data.more_train
    (tmp_path / digits.SYNTHETIC).mkdir(parents=True)
    data = digits.get_config().data
    assert data.more_train.synthetic.input == digits.SYNTHETIC
    # By hours, whatever they have: one part of synthetic audio to two of recordings.
    assert (data.sampling_alpha, data.train.weight, data.more_train.synthetic.weight) == (0.0, 1.0, 0.5)
