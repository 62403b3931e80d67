"""python -m data.augment_examples."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from data import augment_examples
from tests.helpers.augment_toys import write_white_corpus


@pytest.fixture
def arguments(tmp_path):
    manifest = write_white_corpus(tmp_path, count=4, num_samples=8000)
    return ["--format=jsonl", f"--input={manifest}", f"--output={tmp_path / 'out'}"]


def test_twenty_examples_of_every_kind_with_their_originals(arguments, tmp_path, capsys):
    assert augment_examples.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20 and len(list((tmp_path / "out").iterdir())) == 40
    kinds = ("silence", "room", "noise|hum", "talkers", "equalizer", "above", "gain", "clipped", "telephone, no codec",
             "telephone, mulaw", "telephone, gsm")  # fmt: skip
    for line, kind in zip(lines, kinds, strict=False):
        assert any(word in line for word in kind.split("|")) and ";" not in line
    for number in range(1, 21):
        files = [tmp_path / f"out/{number:02d}-{kind}.flac" for kind in ("original", "altered")]
        (original, rate), (altered, _) = (soundfile.read(file) for file in files)
        assert rate == 16_000 and len(original) == 8000 <= len(altered)
        assert len(altered) > 8000 or not np.array_equal(original, altered)
        assert lines[number - 1].startswith(f"{files[1]}: u")


def test_the_fields_of_a_config_and_a_seed_decide(arguments, tmp_path, capsys):
    chosen = [*arguments, "--num_examples=3", "--augment", "noise_prob=1", "noise_snr_db=10,10", "noise_source="]
    assert augment_examples.main(chosen) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.endswith(" at 10.0 dB") for line in lines)
    first = (tmp_path / "out/01-altered.flac").read_bytes()
    assert augment_examples.main(chosen) == 0 and (tmp_path / "out/01-altered.flac").read_bytes() == first
    assert augment_examples.main([*chosen, "--seed=1"]) == 0
    assert (tmp_path / "out/01-altered.flac").read_bytes() != first
    codecs = [*arguments, "--num_examples=2", "--augment", "telephone_prob=1", "telephone_codecs=gsm"]
    capsys.readouterr()
    assert augment_examples.main(codecs) == 0 and capsys.readouterr().out.count("telephone, gsm") == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--augment", "noise_prob=2"], "augment.noise_prob=2: wanted a number, 0 to 1"),
        (["--augment", "noise_snr_db=loud"], "augment.noise_snr_db='loud': wanted two numbers"),
        (["--augment", "noise_snr_db={[]:1}"], "augment.noise_snr_db='{[]:1}': wanted two numbers"),
        (["--augment", "nose_prob=1"], "--augment nose_prob=1: no such field; did you mean noise_prob"),
        (["--augment", "noise_prob"], "--augment noise_prob: has no value; write noise_prob=VALUE"),
        (["--augment", "noise_snr_db=1,2"], "--augment sets no probability above 0: set one of silence_prob, "),
        (["--noise_source=/nowhere"], "augment.noise_source=/nowhere: no such folder or list"),
        (["--num_examples=0"], "--num_examples must be 1 or more"),
    ],
)
def test_bad_usage_is_one_line(arguments, capsys, more, message):
    assert augment_examples.main([*arguments, *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"data.augment_examples: {message}") and error.count("\n") == 1


def test_a_corpus_that_cannot_be_read_is_one_line(arguments, tmp_path, capsys):
    for index in range(4):
        (tmp_path / f"u{index}.wav").write_bytes((tmp_path / f"u{index}.wav").read_bytes()[:400])
    assert augment_examples.main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("data.augment_examples: ")
