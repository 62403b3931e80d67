"""A run goes on with the data it began with; other packages are said."""

from __future__ import annotations

import pytest

from engine.checkpointing import provenance
from engine.workdir.folder import WorkdirError

DATA = {"num_utterances": 8, "num_samples": 100, "ids": "a", "lengths": "b", "texts": "c"}


def describe(**data):
    return provenance.describe(config={"seed": 0}, data={**DATA, **data})


def test_the_same_data_pass_and_the_manifest_tells_the_packages():
    about = describe()
    assert about["config"] == {"seed": 0}
    assert about["packages"]["tensorflow"].startswith("2.")
    provenance.check("ckpt-1", about, describe())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"texts": "x"}, r"ckpt-1: the training data have changed since it was saved: transcripts; restore the corpus"),
        (
            {"num_utterances": 9, "ids": "x"},
            r"number of utterances \(8 then, 9 now\), ids or their order",
        ),
        ({"lengths": "x"}, "saved: durations"),
    ],
)
def test_other_data_are_refused_by_what_changed(change, said):
    with pytest.raises(WorkdirError, match=said):
        provenance.check("ckpt-1", describe(), describe(**change))


def test_other_packages_and_a_missing_manifest_are_said(monkeypatch):
    said = []
    monkeypatch.setattr(provenance.logging, "warning", lambda text, *values: said.append(text % values))
    old = describe()
    old["packages"]["tensorflow"] = "2.19.0"
    provenance.check("ckpt-1", old, describe())
    provenance.check("ckpt-1", None, describe())
    assert "tensorflow 2.19.0 then, 2." in said[0]
    assert said[1].startswith("ckpt-1 has no manifest")


def test_of_several_corpora_the_changed_ones_are_named():
    corpora = {"train": {"texts": "a"}, "calls": {"texts": "b"}}
    changed = {"train": {"texts": "a"}, "calls": {"texts": "c"}}
    with pytest.raises(WorkdirError, match=r"the training data \(calls\) have changed since it was saved: transcripts"):
        provenance.check("ckpt-1", describe(corpora=corpora), describe(corpora=changed, texts="x"))
    with pytest.raises(WorkdirError, match=r"the training data \(train\) have changed"):
        provenance.check("ckpt-1", describe(corpora=corpora), describe(corpora={"calls": {"texts": "b"}}, texts="x"))
    provenance.check("ckpt-1", describe(corpora=corpora), describe(corpora=corpora))
