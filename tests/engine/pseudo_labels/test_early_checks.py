"""What --mode=pseudo_label refuses before TensorFlow is imported, each in a line."""

from __future__ import annotations

import pytest

from engine.pseudo_labels import early_checks


def test_pseudo_labels_go_to_a_local_manifest_that_is_not_read(tmp_path):
    (tmp_path / "m.jsonl").touch()
    (tmp_path / "run").mkdir()

    def check(output="pseudo.jsonl", inputs=("m.jsonl",), strategy="auto", **fields):
        early_checks.check_pseudo_label(
            fields, strategy=strategy, inputs=[str(tmp_path / name) for name in inputs], output=str(tmp_path / output)
        )

    check()
    check(strategy="mirrored", second_checkpoint=str(tmp_path / "run"))
    check(second_checkpoint="hf://facebook/wav2vec2-base-960h")
    for line, fields in (
        ("--output=.*/out.tsv: wanted a local file with the suffix .jsonl", {"output": "out.tsv"}),
        ("--output=.*/m.jsonl: is one of --inputs, which it would replace", {"output": "m.jsonl"}),
        (
            r"--output=\S+/m.jsonl: what is left out goes to \S+/m.left_out.jsonl, one of --inputs",
            {"inputs": ["m.left_out.jsonl"], "output": "m.jsonl"},
        ),
        ("--strategy=tpu: --mode=pseudo_label runs on the devices of one host", {"strategy": "tpu"}),
        (
            r"pseudo_label.second_checkpoint=\S+/rnu: no such folder or checkpoint; did you mean \S+/run\?",
            {"second_checkpoint": str(tmp_path / "rnu")},
        ),
    ):
        with pytest.raises(ValueError, match=f"^{line}"):
            check(**fields)
    with pytest.raises(ValueError, match="^--inputs=-: a manifest cannot name standard input"):
        early_checks.check_pseudo_label({}, strategy="auto", inputs=["-"], output="o.jsonl")
