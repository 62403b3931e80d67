"""A Hugging Face checkpoint with its blank last, a space as delimiter and no normalization, through every reader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from data.audio.decoding import normalize_waveform
from data.audio.streaming import duration_samples, stream_audio
from data.corpus.references import find_reference
from data.synthetic import write_synthetic_corpus
from data.text.tokenizer import load_tokenizer
from engine.config import builders
from engine.inference.export import portable
from engine.inference.loading import load_transcriber
from engine.modes import export, serve
from engine.modes.align import align_file
from models import convert
from models.build import build_model
from models.ctc import alignment, greedy
from models.search.build import build_search
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.helpers.experiment_toys import make_parts
from tests.helpers.models_parity import build_through_the_table, load_golden, tensors_of, write_hf_folder

ROOT = Path(__file__).resolve().parents[1]
TOKENS = ["B", "C", "A", " ", *"DEFGHIJKLMNOPQRSTUVWXYZ", "[UNK]", "'", "[PAD]"]
BLANK = len(TOKENS) - 1


# A tone that sweeps, far from zero mean and unit variance.
SECS = np.arange(16_000, dtype=np.float32) / 16_000
WAVEFORM = (0.2 + 0.3 * np.sin(2 * np.pi * (100 + 1_500 * SECS) * SECS)).astype(np.float32)


def write_checkpoint(folder):
    """A folder as transformers 5 writes it, whose head tells frame from frame."""
    golden = load_golden("large_lv60_shaped")
    states = compute_states(build_through_the_table(golden))
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=[states.shape[1], len(TOKENS)]).astype(np.float32)
    kernel /= (states @ kernel).std(axis=0)
    bias = 0.5 * np.eye(len(TOKENS), dtype=np.float32)[BLANK] - (states @ kernel).mean(axis=0)
    tensors = tensors_of(golden) | {"lm_head.weight": np.ascontiguousarray(kernel.T), "lm_head.bias": bias}
    write_hf_folder(folder, golden, tensors=tensors, vocab=False, pad_token_id=BLANK, vocab_size=len(TOKENS))
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(TOKENS)}))
    roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "word_delimiter_token": " ", "added_tokens_decoder": {}}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    extractor = {"do_normalize": False, "sampling_rate": 16_000}
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor}))
    return folder


def compute_states(model):
    """float32 [F, D], below the head, of the tone as it is."""
    states, _ = model.backbone(tf.constant(WAVEFORM[np.newaxis]), tf.constant([len(WAVEFORM)]), None)
    return states[-1][0].numpy()


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    root = tmp_path_factory.mktemp("converted")
    convert.from_hf(input=write_checkpoint(root / "hf"), output=root / "ours")
    soundfile.write(root / "a.wav", WAVEFORM, 16_000, subtype="FLOAT")
    return root


@pytest.fixture(scope="module")
def parts():
    return make_parts(
        build_tokenizer=load_tokenizer,
        build_model=build_model,
        count_samples=duration_samples,
        stream_audio=stream_audio,
        normalize_waveform=normalize_waveform,
        find_reference=find_reference,
        decoder=greedy.greedy_decode,
        span_decoder=alignment.greedy_spans,
        span_graph_decoder=greedy.greedy_decode_spans,
        aligner=alignment.forced_align,
        build_search=build_search,
    )


def read_by_hand(folder):
    """What transformers does: the samples as they are, repeats merged, the blank dropped, a space between words."""
    model = Wav2Vec2ForCTC.from_pretrained(folder)
    logits = model(tf.constant(WAVEFORM[np.newaxis]), tf.constant([len(WAVEFORM)]))[0].numpy()
    best = logits.argmax(-1)
    kept = [token for token, before in zip(best, [-1, *best], strict=False) if token not in (before, BLANK)]
    return logits, " ".join("".join("" if TOKENS[i] == "[UNK]" else TOKENS[i] for i in kept).split())


def test_every_reader_hears_what_transformers_hears(converted, parts, tmp_path):
    folder, audio = str(converted / "ours"), str(converted / "a.wav")
    logits, text = read_by_hand(folder)
    assert " " in text and len(text) > 10
    transcriber = load_transcriber(parts=parts, checkpoint=folder)
    assert transcriber.transcribe_files([audio], quiet=True).transcripts[0].text == text
    # With the other normalization the text is another: the test could fail.
    transcriber.normalize = normalize_waveform
    assert transcriber.transcribe_files([audio], quiet=True).transcripts[0].text != text

    fields = {"method": "beam", "beam_size": 1, "beam_tokens": 0, "beam_threshold": 25.0, "num_hypotheses": 1}
    fields |= {"lm": "", "lexicon": "", "lm_weight": 1.0, "word_score": 0.0, "hot_words": (), "hot_word_score": 4.0}
    searching = load_transcriber(parts=parts, checkpoint=folder, decode=fields)
    assert searching.transcribe_files([audio], quiet=True).transcripts[0].text == text

    transcriber = load_transcriber(parts=parts, checkpoint=folder)
    aligner = builders.with_blank(parts, transcriber.tokenizer).aligner
    record, words = align_file(transcriber, aligner, audio, text)
    assert record["hypothesis"] == text == " ".join(word.text for word in words)
    assert record["score"] > -0.5  # the best path but for the unknowns in it

    served = serve.find_signature(transcriber, parts)
    row = {"waveform": tf.constant(WAVEFORM[np.newaxis]), "lengths": tf.constant([len(WAVEFORM)])}
    assert served(**row)["text"].numpy()[0].decode() == text
    module = portable.build_portable(transcriber.model, normalize=transcriber.normalizes)
    np.testing.assert_allclose(module.logits(row["waveform"])["logits"][0], logits, atol=1e-4)

    output = tmp_path / "exported"
    assert export.run(parts=parts, checkpoint=folder, inputs=[audio], output=str(output)) == 0
    said = json.loads((output / "export.json").read_text())
    assert (said["normalize_waveform"], said["blank_id"], said["delimiter_id"]) == (False, BLANK, 3)
    exported = load_transcriber(parts=parts, checkpoint=str(output))
    assert exported.transcribe_files([audio], quiet=True).transcripts[0].text == text
    assert serve.find_signature(exported, parts)(**row)["text"].numpy()[0].decode() == text


@pytest.mark.slow
def test_a_run_trains_on_and_goes_back(tmp_path):
    """The whole way through the commands: convert, train with the head, evaluate, transcribe, back."""
    corpus = write_synthetic_corpus(
        output=tmp_path / "corpus", num_train=8, num_eval=4, num_train_speakers=2, num_eval_speakers=2
    )
    convert.from_hf(input=write_checkpoint(tmp_path / "hf"), output=tmp_path / "ours")
    run = tmp_path / "run"

    def command(*arguments):
        done = subprocess.run(
            [sys.executable, "run.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]

    config = [f"--config=configs/debug.py:{corpus}", f"--workdir={run}", "--config.model.preset=auto"]
    config += [f"--config.model.init={tmp_path / 'ours'}", "--config.model.init_head=True"]
    config += [f"--config.data.vocab={tmp_path / 'ours/vocab.json'}"]
    config += [
        "--config.train.num_updates=2",
        "--config.train.global_batch_size=4",
        "--config.train.learning_rate=1e-9",
    ]
    config += ["--config.train.warmup_updates=0", "--config.train.hold_updates=0"]
    command(*config)
    assert json.loads((run / "config.json").read_text())["model"]["architecture"]["normalize_waveform"] is False
    (tmp_path / "ours").rename(tmp_path / "gone")  # the workdir tells it all
    command(*config, "--mode=eval")
    command("--mode=transcribe", f"--checkpoint={run}", f"--inputs={corpus}/eval", f"--output={tmp_path / 'out.jsonl'}")
    transcripts = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    heard = {Path(line["audio_filepath"]).stem: line["text"] for line in transcripts}
    lines = map(json.loads, (run / "eval/unseen_voices/predictions.jsonl").read_text().splitlines())
    assert heard == {line["utterance_id"]: line["hypothesis"] for line in lines} and any(heard.values())
    convert.to_hf(input=run, output=tmp_path / "back")
    back = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "back").glob("*.json")}
    assert list(back["vocab"]) == TOKENS and back["config"]["pad_token_id"] == BLANK
    assert back["preprocessor_config"]["do_normalize"] is False
    assert back["tokenizer_config"]["word_delimiter_token"] == " "
