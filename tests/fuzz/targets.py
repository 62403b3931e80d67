"""The readers of files and requests from outside, each with sound inputs that a mutation starts from."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging as std_logging
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from configs.base import get_decode
from data.audio.decoding import load_waveform, read_header
from data.audio.streaming import stream_audio
from data.common.errors import InputError
from data.corpus.manifest import read_utterances
from data.open_corpus import open_source
from data.shards.preparation import write_tfrecords
from data.text.tokenizer import load_tokenizer
from data.unlabelled.listing import UnlabelledCorpus, Unusable
from engine.config import recorded_run
from engine.config.decode import read_decode_file
from engine.inference.inputs import find_audio
from engine.inference.serving import openai_json, tf_serving_json, uploads
from engine.inference.serving.answers import Answer, RefusedError, one_line
from engine.inference.serving.http_server import Limits, Service
from engine.modes import report as command
from engine.pseudo_labels.label_journal import LabelJournal
from engine.report.history import write_history
from models import convert
from models.hugging_face import config as hf_config
from models.hugging_face import names as hf_names
from models.wav2vec2.pretrained import read_config
from tests.engine.inference.serving.test_http_server import LIMITS
from tests.engine.inference.serving.test_uploads import CONTENT_TYPE, form, openai_form
from tests.engine.report.toys import make_predictions
from tests.fuzz.mutations import mutate_bytes, mutate_json, mutate_lines
from tests.helpers.experiment_toys import make_config, make_parts
from tests.helpers.hostile_requests import hostile_heads
from tests.helpers.models_parity import load_golden, write_hf_folder

Reader = Callable[[Path], object]


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader and what it reads.

    Attributes:
        make: Writes sound inputs into an empty folder.
        read: Reads the folder; may raise what a reader may.
        names: Patterns of the files that are damaged.
        mutate: Damages a file, where its name does not say how.
        names_the_file: Whether a complaint must name a file of the folder.
    """

    make: Callable[[Path], None]
    read: Reader
    names: tuple[str, ...] = ("*",)
    mutate: Callable[[random.Random, bytes], bytes] | None = None
    names_the_file: bool = True


def damage(rng: random.Random, target: Target, path: Path) -> bytes:
    """Returns a damaged content for a file, in the way of its kind."""
    content = path.read_bytes()
    if target.mutate is not None:
        return target.mutate(rng, content)
    if rng.random() < 0.25:
        return mutate_bytes(rng, content)
    if path.suffix == ".json":
        return mutate_json(rng, json.loads(content))
    if path.suffix == ".jsonl":
        return mutate_lines(rng, [json.loads(line) for line in content.splitlines()])
    return mutate_bytes(rng, content)


# Audio. Every format that libsndfile writes, half a second, some with two channels or another rate.
_AUDIO = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "wav-float": {"format": "WAV", "subtype": "FLOAT"},
    "wav-gsm": {"format": "WAV", "subtype": "GSM610"},
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
    "aiff": {"format": "AIFF"},
    "au": {"format": "AU"},
    "w64": {"format": "W64"},
    "rf64": {"format": "RF64"},
}


def _make_audio(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        rate = {"mp3": 22_050, "aiff": 44_100, "wav-gsm": 8_000}.get(name, 16_000)
        samples = np.random.default_rng(0).normal(size=(rate // 2, 2 if name in ("flac", "w64") else 1)) * 0.1
        soundfile.write(folder / "a.audio", samples, rate, **_AUDIO[name])  # the content decides, not the suffix

    return make


def _read_audio(folder: Path) -> None:
    path = str(folder / "a.audio")
    num_samples, rate = read_header(path)
    assert num_samples > 0 and rate > 0
    waveform = load_waveform(path)
    assert np.isfinite(waveform).all()
    assert sum(len(block) for block in stream_audio(path)) == len(waveform)


# Manifests and shards.
_TEXTS = ("A B", "IT'S C", "D")


def _make_recordings(folder: Path) -> None:
    for index in range(len(_TEXTS)):
        soundfile.write(folder / f"u{index}.wav", np.linspace(-0.4, 0.4, 1600), 16_000)


def _make_jsonl(folder: Path) -> None:
    _make_recordings(folder)
    lines = [
        {"audio_filepath": f"u{index}.wav", "text": text, "duration": 0.1, "speaker": "s", "utterance_id": f"id{index}"}
        for index, text in enumerate(_TEXTS)
    ]
    (folder / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _make_table(name: str, separator: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        _make_recordings(folder)
        rows = [["path", "sentence", "client_id"], *([f"u{index}.wav", text, "s"] for index, text in enumerate(_TEXTS))]
        (folder / name).write_text("".join(separator.join(row) + "\n" for row in rows))

    return make


def _make_librispeech(folder: Path) -> None:
    chapter = folder / "dev" / "1" / "2"
    chapter.mkdir(parents=True)
    for index in range(len(_TEXTS)):
        soundfile.write(chapter / f"1-2-{index:04d}.flac", np.linspace(-0.4, 0.4, 1600), 16_000)
    lines = [f"1-2-{index:04d} {text}\n" for index, text in enumerate(_TEXTS)]
    (chapter / "1-2.trans.txt").write_text("".join(lines))


def _make_kaldi(folder: Path) -> None:
    _make_recordings(folder)
    lists = {
        "wav.scp": "r{0} u{0}.wav",
        "segments": "id{0} r{0} 0.01 0.09",
        "text": "id{0} A B",
        "utt2spk": "id{0} s",
        "reco2dur": "r{0} 0.1",
    }
    for name, line in lists.items():
        (folder / name).write_text("".join(f"{line.format(index)}\n" for index in range(len(_TEXTS))))


def _make_cuts(folder: Path) -> None:
    _make_recordings(folder)
    times = {"start": 0.01, "duration": 0.08, "channel": 0}
    cuts = [
        {
            "id": f"id{index}",
            **times,
            "supervisions": [{"id": f"s{index}", **times, "start": 0.0, "text": text, "speaker": "s"}],
            "recording": {
                "id": f"r{index}",
                "sources": [{"type": "file", "channels": [0], "source": f"u{index}.wav"}],
                "sampling_rate": 16_000,
                "num_samples": 1600,
                "duration": 0.1,
            },
            "type": "MonoCut",
        }
        for index, text in enumerate(_TEXTS)
    ]
    (folder / "cuts.jsonl").write_text("".join(json.dumps(cut) + "\n" for cut in cuts))


def _read_corpus(format: str, name: str = "", split: str = "") -> Reader:
    def read(folder: Path) -> None:
        source = open_source(format=format, input=folder / name, split=split)
        for index in range(min(len(source.utterance_ids), 4)):
            source.read_waveform(index)

    return read


def _read_unlabelled(folder: Path) -> None:
    (path,) = folder.glob("m.*")
    corpus = UnlabelledCorpus([str(path)], find_audio=find_audio, text_normalization="unicode")
    rows = list(corpus)
    assert len(rows) == corpus.count()
    for row in rows:
        if not isinstance(row, Unusable):
            with contextlib.suppress(InputError):  # which costs this row alone
                assert sum(map(len, row.stream())) == row.count_samples()


def _make_journal(folder: Path) -> None:
    with LabelJournal(str(folder / "o.partial"), {"inputs": ["a"]}) as journal:
        for numbers in ((0, 1, 2, 3), (1, 3, 4)):
            journal.append([{"name": f"{n}.wav", "labels": [], "index": n, "version": {}} for n in numbers])


def _read_journal(folder: Path) -> None:
    with LabelJournal(str(folder / "o.partial"), {"inputs": ["a"]}) as journal:
        assert len(list(journal.rows())) == journal.num_rows
        assert [row["index"] for row in journal.latest()] == list(range(journal.num_done))


def _make_shards(folder: Path) -> None:
    _make_jsonl(folder)
    write_tfrecords(utterances=read_utterances(format="jsonl", input=folder / "m.jsonl"), output=folder, num_shards=2)
    for path in (*folder.glob("*.wav"), folder / "m.jsonl"):
        path.unlink()


# Configs, vocabularies, weights.
def _make_run(folder: Path) -> None:
    texts = [("a b c", "a"), ("one", "x"), ("", "y z"), ("d", "d")]
    predictions = make_predictions(texts, speakers=["s", "s", "t", ""], secs=[1.0, 2.5, 0.1, 9.0])
    part = folder / "eval" / "dev"
    (part / "history").mkdir(parents=True)
    (part / "predictions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in predictions))
    write_history(part, 10, [{**record, "hypothesis": "", "errors": 2} for record in predictions])
    train = {"split": "train", "loss": 9.5, "learning_rate": 0.1, "audio_secs_per_sec": 30.0}
    evaluation = {"split": "dev", "wer": 0.5, "cer": 0.25, "loss": 2.0, "num_words": 5, "num_utterances": 4}
    lines = [{"step": step, **line} for step in (10, 20) for line in (train, evaluation)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = make_config(folder)
    config.data.eval = {"dev": {"format": "jsonl", "input": "there"}}
    (folder / "config.json").write_text(json.dumps(config.to_dict()))


def _absent(**fields: Any) -> None:
    raise ValueError("there: no such file")


_PARTS = make_parts(build_eval_data=_absent)


def _read_report(folder: Path) -> None:
    page = folder.with_suffix(".html")
    command.run(parts=_PARTS, inputs=[str(folder)], output=str(page))


def _make_vocab(folder: Path) -> None:
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))


def _make_our_config(folder: Path) -> None:
    config = hf_config.from_hf(json.loads(str(load_golden("base_shaped")["config"])))
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))


def _make_decode(folder: Path) -> None:
    fields = {**get_decode().to_dict(), "hot_words": ["A"], "tuning": {"trials": [{"wer": 0.5}]}}
    (folder / "decode.json").write_text(json.dumps(fields))


def _make_hugging_face(folder: Path) -> None:
    write_hf_folder(folder, load_golden("base_shaped"))
    extras = {
        "added_tokens.json": {},
        "preprocessor_config.json": {"sampling_rate": 16_000, "do_normalize": True},
        "tokenizer_config.json": {"pad_token": "<pad>", "word_delimiter_token": "|"},
        "special_tokens_map.json": {"pad_token": "<pad>", "unk_token": {"content": "<unk>", "lstrip": False}},
    }
    for name, fields in extras.items():
        if not (folder / name).exists():
            (folder / name).write_text(json.dumps(fields))


def _make_sharded(folder: Path) -> None:
    _make_hugging_face(folder)
    names = list(hf_tensors(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def hf_tensors(path: Path) -> dict[str, Any]:
    """Returns the head of a safetensors file."""
    content = path.read_bytes()
    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return {name: fields for name, fields in head.items() if name != "__metadata__"}


def _mutate_safetensors(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.4:
        return mutate_bytes(rng, content)
    size = int.from_bytes(content[:8], "little")
    head = mutate_json(rng, json.loads(content[8 : 8 + size]))
    return len(head).to_bytes(8, "little") + head + content[8 + size :]


def _read_weights(folder: Path) -> None:
    def read_all(output: Path, *, report: Any, value_of: Any, **rest: Any) -> None:
        for entry in hf_names.name_table(report.config):
            value_of(entry)

    written, convert.write_native = convert.write_native, read_all  # the model itself would take seconds
    try:
        convert.from_hf(input=folder, output=folder / "ours")
    finally:
        convert.write_native = written


# The server.
def _make_requests(folder: Path) -> None:
    fields = {"instances": [{"waveform": [0.5, -0.25, 1], "lengths": 2}, [0.0, 0.125]]}
    (folder / "instances.json").write_text(json.dumps({"signature_name": "serving_default", **fields}))
    (folder / "inputs.json").write_text(json.dumps({"inputs": {"waveform": [[0.5], [1]], "lengths": [1, 1]}}))


def _read_requests(folder: Path) -> None:
    for name in ("instances.json", "inputs.json"):
        tf_serving_json.parse_request((folder / name).read_bytes(), max_rows=8, max_samples=16_000)


def _make_form(folder: Path) -> None:
    (folder / "form").write_bytes(form("a.wav"))
    (folder / "type").write_bytes(CONTENT_TYPE.encode())
    (folder / "disposition").write_bytes(b"attachment; filename*=UTF-8''a%20b.wav")


def _read_form(folder: Path) -> None:
    uploads.extract_file((folder / "form").read_bytes(), (folder / "type").read_bytes().decode("latin-1"))
    lines = (folder / "disposition").read_bytes().decode("latin-1").splitlines()  # a header is one line
    uploads.name_of(lines[0] if lines else "")


def _make_openai_form(folder: Path) -> None:
    fields = (("model", "m"), ("response_format", "verbose_json"), ("timestamp_granularities[]", "word"))
    (folder / "form").write_bytes(openai_form("a.wav", fields=(*fields, ("temperature", "0"), ("stream", "false"))))


def _read_openai_form(folder: Path) -> None:
    form = uploads.parse_form((folder / "form").read_bytes(), CONTENT_TYPE)
    try:
        openai_json.read_form(form, served_model="toy")
    except RefusedError as error:
        raise ValueError(one_line(str(error))) from error


def _make_heads(folder: Path) -> None:
    sound = b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\nContent-Length: 3\r\n"
    (folder / "head").write_bytes(
        sound + b"Content-Disposition: attachment; filename=a.wav\r\nConnection: close\r\n\r\nabc"
    )


def _mutate_head(rng: random.Random, content: bytes) -> bytes:
    return rng.choice(list(hostile_heads().values())) if rng.random() < 0.1 else mutate_bytes(rng, content)


class _Server:
    """A server in a thread that is started with the first request and ends with the process."""

    def __init__(self) -> None:
        self.port = 0
        self.records: list[std_logging.LogRecord] = []

    def start(self) -> None:
        if self.port:
            return
        ready = threading.Event()
        handler = std_logging.Handler(std_logging.ERROR)
        handler.emit = self.records.append  # type: ignore[method-assign]
        std_logging.getLogger().addHandler(handler)
        limits = Limits(**{**LIMITS, "body_timeout_secs": 0.3, "idle_timeout_secs": 0.3})

        async def serve() -> None:
            answer = lambda requests: [Answer(200, b"{}") for _ in requests]  # noqa: E731
            self.port = Service(answer=answer, metadata={}, limits=limits).listen(host="127.0.0.1", port=0)
            ready.set()
            await asyncio.Event().wait()

        threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
        assert ready.wait(10)


_SERVER = _Server()


def _read_heads(folder: Path) -> None:
    _SERVER.start()
    answer = b""
    with (
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
        socket.create_connection(("127.0.0.1", _SERVER.port), timeout=8) as connection,
    ):
        connection.sendall((folder / "head").read_bytes())
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    if answer and int(answer.split()[1]) >= 500:
        raise AssertionError(f"answered {answer[:200]!r}")
    if _SERVER.records:
        record = _SERVER.records.pop()
        _SERVER.records.clear()
        raise AssertionError(f"logged {record.getMessage()[:300]}")


def build_targets() -> dict[str, Target]:
    """Returns the targets by name."""
    targets = {f"audio-{name}": Target(_make_audio(name), _read_audio, mutate=mutate_bytes) for name in _AUDIO}
    targets |= {
        "manifest-jsonl": Target(_make_jsonl, _read_corpus("jsonl", "m.jsonl"), ("m.jsonl",)),
        "manifest-csv": Target(_make_table("m.csv", ","), _read_corpus("csv", "m.csv"), ("m.csv",)),
        "manifest-tsv": Target(_make_table("m.tsv", "\t"), _read_corpus("tsv", "m.tsv"), ("m.tsv",)),
        "unlabelled-jsonl": Target(_make_jsonl, _read_unlabelled, ("m.jsonl",)),
        "unlabelled-csv": Target(_make_table("m.csv", ","), _read_unlabelled, ("m.csv",)),
        "pseudo-label-journal": Target(_make_journal, _read_journal, ("o.partial",)),
        "librispeech": Target(_make_librispeech, _read_corpus("librispeech", split="dev"), ("dev/1/2/*.txt",)),
        "kaldi": Target(_make_kaldi, _read_corpus("kaldi"), ("wav.scp", "segments", "text", "utt2spk", "reco2dur")),
        "lhotse": Target(_make_cuts, _read_corpus("lhotse", "cuts.jsonl"), ("cuts.jsonl",)),
        "index": Target(_make_shards, _read_corpus("tfrecord"), ("index.json",)),
        "shards": Target(_make_shards, _read_corpus("tfrecord"), ("*.tfrecord*",)),
        "run-config": Target(_make_run, lambda folder: recorded_run.load_run(str(folder)), ("config.json",)),
        "report": Target(
            _make_run, _read_report, ("config.json", "metrics.jsonl", "eval/dev/*.jsonl", "eval/dev/history/*.jsonl")
        ),
        "decode": Target(
            _make_decode, lambda folder: read_decode_file(str(folder / "decode.json"), get_decode().to_dict())
        ),
        "vocab": Target(_make_vocab, lambda folder: load_tokenizer(str(folder / "vocab.json"))),
        "our-config": Target(_make_our_config, read_config),
        "hugging-face-config": Target(
            _make_hugging_face, lambda folder: hf_config.read_hf_config(folder / "config.json"), ("config.json",)
        ),
        "hugging-face-files": Target(_make_hugging_face, _read_weights, ("*.json",)),
        "safetensors": Target(_make_hugging_face, _read_weights, ("model.safetensors",), _mutate_safetensors),
        "safetensors-index": Target(_make_sharded, _read_weights, ("model.safetensors.index.json",)),
        "predict-json": Target(_make_requests, _read_requests, names_the_file=False),
        "form": Target(_make_form, _read_form, mutate=mutate_bytes, names_the_file=False),
        "openai-form": Target(_make_openai_form, _read_openai_form, mutate=mutate_bytes, names_the_file=False),
        "http-head": Target(_make_heads, _read_heads, mutate=_mutate_head, names_the_file=False),
    }
    return targets


def files_of(folder: Path, target: Target) -> list[Path]:
    """Returns the files of a folder that a target damages, in one order."""
    return sorted({path for pattern in target.names for path in folder.glob(pattern) if path.is_file()})
