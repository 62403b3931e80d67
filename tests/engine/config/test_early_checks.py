"""What is told before TensorFlow is imported: values, paths and extras, each in a line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from configs.base import get_config, get_eval_set, get_train_set
from engine.config import early_checks, extras

PRESETS = ("auto", "base", "tiny")


@pytest.fixture
def run_fields(tmp_path):
    """The config of a run whose paths all exist, and where they are."""
    config = get_config()
    for name in ("train.jsonl", "dev.jsonl", "vocab.json", "words.arpa"):
        (tmp_path / name).touch()
    (tmp_path / "weights").mkdir()
    config.data.prepare_command = f"python -m data.synthetic --output={tmp_path}/corpus"
    config.data.train.input = str(tmp_path / "train.jsonl")
    config.data.eval = {"dev": get_eval_set(input=str(tmp_path / "dev.jsonl"))}
    config.eval.best_metric_set = "dev"
    config.data.vocab = str(tmp_path / "vocab.json")
    config.model.init = str(tmp_path / "weights")
    return config


def check_run(config, tmp_path, **more):
    arguments = {"mode": "train_and_eval", "workdir": str(tmp_path / "run"), "checkpoint": "", "presets": PRESETS}
    early_checks.check_run(config.to_dict(), **{**arguments, **more})


@pytest.mark.parametrize(
    ("field", "name", "line"),
    [
        ("data.train.input", "trian.jsonl", "no such corpus; did you mean {0}/train.jsonl?; check the path"),
        ("data.train.input", "corpus", "no such corpus; make it with: python -m data.synthetic --output={0}/corpus"),
        ("data.eval.dev.input", "dve.jsonl", "no such corpus; did you mean {0}/dev.jsonl?; check the path"),
        ("data.vocab", "vocab.jsn", "no such file; did you mean {0}/vocab.json?; make one with python -m data.vocab"),
        ("model.init", "wieghts", "no such weights; did you mean {0}/weights?; convert a Hugging Face folder with"),
    ],
)
def test_a_missing_path_names_its_field_and_what_lies_near(run_fields, tmp_path, field, name, line):
    check_run(run_fields, tmp_path)
    run_fields.update_from_flattened_dict({field: str(tmp_path / name)})
    with pytest.raises(ValueError) as raised:
        check_run(run_fields, tmp_path)
    assert str(raised.value).startswith(f"{field}={tmp_path / name}: {line.format(tmp_path)}")


def test_every_training_corpus_must_be_there(run_fields, tmp_path):
    run_fields.data.more_train.calls = get_train_set(input=str(tmp_path / "trian.jsonl"))
    with pytest.raises(
        ValueError, match=r"^data\.more_train\.calls\.input=.*no such corpus; did you mean .*train\.jsonl"
    ):
        check_run(run_fields, tmp_path, mode="train")
    run_fields.data.more_train.calls.input = ""
    with pytest.raises(ValueError, match=r"--config\.data\.more_train\.calls\.input=PATH"):
        check_run(run_fields, tmp_path)
    check_run(run_fields, tmp_path, mode="doctor")  # which reports it among its findings


def test_a_new_set_without_its_corpus_says_which_flag_names_one(run_fields, tmp_path):
    run_fields.data.eval.mine = get_eval_set()
    with pytest.raises(ValueError, match="^data.eval.mine.input is empty: name .* --config.data.eval.mine.input=PATH"):
        check_run(run_fields, tmp_path)
    check_run(run_fields, tmp_path, mode="train")  # which evaluates nothing


def test_a_preset_is_a_name_or_a_file(run_fields, tmp_path):
    run_fields.model.preset = "tinny"
    with pytest.raises(ValueError, match="^model.preset='tinny': neither a name nor a config.json; did you mean tiny"):
        check_run(run_fields, tmp_path)
    run_fields.model.preset = str(tmp_path / "vocab.json")
    check_run(run_fields, tmp_path)


def test_a_hub_run_wants_its_handle_and_no_preset(run_fields, tmp_path):
    run_fields.model.source, run_fields.model.preset = "hub", "whatever"
    with pytest.raises(ValueError, match="^model.hub_handle is empty: "):
        check_run(run_fields, tmp_path)
    run_fields.model.hub_handle = str(tmp_path / "weihgts")
    with pytest.raises(ValueError, match=r"no such folder; did you mean \S+/weights\?"):
        check_run(run_fields, tmp_path)
    run_fields.model.hub_handle = "https://example.org/model/1"
    check_run(run_fields, tmp_path)


def test_a_run_that_goes_on_does_not_need_what_it_started_from(run_fields, tmp_path):
    run_fields.model.init = str(tmp_path / "gone")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match="model.init="):
        check_run(run_fields, tmp_path)
    (tmp_path / "run/checkpoints/ckpt-5.index").touch()
    check_run(run_fields, tmp_path)


def test_a_vocabulary_may_be_left_to_the_texts_or_be_the_published_one(run_fields, tmp_path):
    for run_fields.data.vocab in ("auto", "words", ""):
        check_run(run_fields, tmp_path)


def test_each_mode_looks_at_the_paths_that_it_reads(run_fields, tmp_path):
    run_fields.data.train.input = run_fields.model.init = str(tmp_path / "gone")
    check_run(run_fields, tmp_path, mode="continuous_eval")
    (tmp_path / "run").mkdir()
    check_run(run_fields, tmp_path, mode="eval")
    check_run(run_fields, tmp_path, mode="tune_lm")
    with pytest.raises(ValueError, match=r"^--workdir=\S+/rnu: no such run; did you mean \S+/run\?; train it first"):
        check_run(run_fields, tmp_path, mode="eval", workdir=str(tmp_path / "rnu"))
    with pytest.raises(ValueError, match=r"^--checkpoint=\S+/rnu: no such folder or checkpoint; did you mean \S+/run"):
        check_run(run_fields, tmp_path, mode="eval", checkpoint=str(tmp_path / "rnu"))
    run_fields.data.vocab, run_fields.model.init = str(tmp_path / "gone"), ""
    (tmp_path / "run/vocab.json").touch()
    check_run(run_fields, tmp_path, mode="eval")  # a run has its own
    with pytest.raises(ValueError, match="^data.vocab="):
        check_run(run_fields, tmp_path, mode="doctor")
    # So has the run of --checkpoint, which comes first.
    other = tmp_path / "other"
    (other / "best").mkdir(parents=True)
    (other / "config.json").touch()
    with pytest.raises(ValueError, match="^data.vocab="):
        check_run(run_fields, tmp_path, mode="eval", checkpoint=str(other / "best"))
    (other / "vocab.json").touch()
    check_run(run_fields, tmp_path, mode="eval", checkpoint=str(other / "best"))
    run_fields.data.eval.dev.input = str(tmp_path / "gone")
    for mode in ("eval", "continuous_eval", "tune_lm"):
        with pytest.raises(ValueError, match="^data.eval.dev.input="):
            check_run(run_fields, tmp_path, mode=mode)


def test_urls_are_left_to_who_can_read_them(run_fields, tmp_path):
    run_fields.data.train.input = run_fields.data.eval.dev.input = "gs://bucket/corpus"
    run_fields.data.vocab = run_fields.model.init = "s3://bucket/x"
    check_run(run_fields, tmp_path, workdir="gs://bucket/run", mode="train_and_eval")
    early_checks.check_checkpoint("gs://bucket/run")
    early_checks.check_folder("--output", "gs://bucket/x")
    early_checks.check_file("--output", "gs://bucket/x")


def test_the_doctor_wants_a_recognizer_or_none(run_fields, tmp_path):
    (tmp_path / "run/best").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"^--checkpoint=\S+/best: no config\.json there or above"):
        check_run(run_fields, tmp_path, mode="doctor", checkpoint=str(tmp_path / "run/best"))
    (tmp_path / "run/config.json").touch()
    check_run(run_fields, tmp_path, mode="doctor", checkpoint=str(tmp_path / "run/best"), weights="ema")
    with pytest.raises(ValueError, match=r"^--weights=ema: chooses weights of --checkpoint, which is missing"):
        check_run(run_fields, tmp_path, mode="doctor", weights="ema")


@pytest.mark.parametrize("path", ["hf://datasets/a/b", "shards/train-{000..002}.tar", "data/*.parquet"])
def test_paths_of_several_files_are_left_to_who_can_read_them(run_fields, tmp_path, path):
    run_fields.data.train.input = run_fields.data.eval.dev.input = path
    check_run(run_fields, tmp_path, mode="train_and_eval")


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_a_corpus_whose_reader_is_not_installed_is_told_with_the_extra(run_fields, tmp_path, monkeypatch, format):
    run_fields.data.train.format = format
    check_run(run_fields, tmp_path, mode="train")
    monkeypatch.setattr(extras, "is_installed", lambda package: package != "pyarrow")
    with pytest.raises(ValueError, match=rf"^format={format} needs pyarrow, which .*: pip install -e '\.\[parquet\]'"):
        check_run(run_fields, tmp_path, mode="train")


@pytest.mark.parametrize("mode", ["transcribe", "align", "export", "serve"])
def test_a_wrong_checkpoint_is_told_in_every_mode_that_reads_one(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(extras, "is_installed", lambda package: True)
    (tmp_path / "run/best").mkdir(parents=True)

    def check(checkpoint):
        output = str(tmp_path / ("out.jsonl" if mode == "transcribe" else "out"))
        early_checks.check_use(mode=mode, checkpoint=checkpoint, inputs=["-"], output=output)

    with pytest.raises(ValueError, match="^--checkpoint is empty: give the workdir of a training run"):
        check("")
    with pytest.raises(
        ValueError, match=r"^--checkpoint=\S+/rnu: no such folder or checkpoint; did you mean \S+/run\?"
    ):
        check(str(tmp_path / "rnu"))
    with pytest.raises(ValueError, match=r"run: no config.json there or above; give the workdir of a training run"):
        check(str(tmp_path / "run"))
    (tmp_path / "run/config.json").touch()
    (tmp_path / "run/best/ckpt-5.index").touch()
    for name in ("run", "run/best", "run/best/ckpt-5"):
        check(str(tmp_path / name))
    with pytest.raises(ValueError, match="ckpt-6: no such folder or checkpoint"):
        check(str(tmp_path / "run/best/ckpt-6"))


def test_inputs_that_are_not_there_are_told(tmp_path):
    (tmp_path / "config.json").touch()
    (tmp_path / "a.wav").touch()

    def check(*inputs, mode="transcribe"):
        early_checks.check_use(mode=mode, checkpoint=str(tmp_path), inputs=inputs, output=str(tmp_path / "o.txt"))

    check(str(tmp_path / "a.wav"), str(tmp_path), str(tmp_path / "*.wav"), "-")
    (tmp_path / "Well, hello, world.wav").touch()
    # As absl takes a list apart; whether such a name can be read is `find_audio`'s to say.
    check(str(tmp_path / "a.wav"), str(tmp_path / "Well"), "hello", "world.wav", str(tmp_path / "a.wav"))
    with pytest.raises(ValueError, match=r"^\S+/Well: no such file"):
        check(str(tmp_path / "Well"), "helo", "world.wav")
    with pytest.raises(ValueError, match=r"aa.wav: no such file or folder; did you mean \S+/a.wav\?; give audio files"):
        check(str(tmp_path / "aa.wav"))
    with pytest.raises(ValueError, match=r"\*.mp3: no file matches this pattern; check it, and quote it in the shell"):
        check(str(tmp_path / "*.mp3"))
    with pytest.raises(ValueError, match="nowhere: no such file or folder; give workdirs to --inputs"):
        check("nowhere", mode="report")


def test_what_is_empty_or_of_no_format_is_told(tmp_path):
    (tmp_path / "config.json").touch()
    arguments = {"checkpoint": str(tmp_path), "inputs": ["-"], "output": str(tmp_path / "o.txt")}
    early_checks.check_use(mode="transcribe", **arguments)
    for mode, changes, line in (
        ("transcribe", {"output": ""}, "--output is empty: name the file to write, such as out.jsonl"),
        ("align", {"output": ""}, "--output is empty: name the folder"),
        ("export", {"output": ""}, "--output is empty: name the folder"),
        ("align", {"inputs": []}, "--inputs is empty: give audio files or folders"),
        ("pseudo_label", {"inputs": []}, "--inputs is empty: give audio files or folders"),
        ("pseudo_label", {"output": ""}, "--output is empty: name the file to write, such as out.jsonl"),
        ("average", {"inputs": []}, "--inputs is empty: name the checkpoints to average, last:5, best:5, or their"),
        ("average", {"inputs": ["lst:5"]}, "--inputs=lst:5: no such checkpoint; write last:5, best:5, or the paths"),
        ("average", {"inputs": ["last:5"], "output": ""}, "--output is empty: name the folder"),
        ("average", {"inputs": ["last:5"], "output": str(tmp_path)}, f"--output={tmp_path}: is not empty"),
        ("export", {"output": str(tmp_path)}, f"--output={tmp_path}: is not empty; give --output a new folder"),
        ("transcribe", {"output": "o.doc"}, "--output=o.doc: no format of transcripts"),
        ("transcribe", {"output_format": "docx"}, f"--output={tmp_path}/o.txt: no format of transcripts"),
    ):
        with pytest.raises(ValueError, match=f"^{line}"):
            early_checks.check_use(mode=mode, **{**arguments, **changes})


def test_checkpoints_to_average_are_the_last_the_best_or_named(tmp_path):
    (tmp_path / "config.json").touch()
    (tmp_path / "ckpt-5.index").touch()
    for inputs in (["last:5"], ["best:2"], [str(tmp_path / "ckpt-5"), str(tmp_path / "ckpt-5.index")]):
        output = str(tmp_path / "average")
        early_checks.check_use(mode="average", checkpoint=str(tmp_path), inputs=inputs, output=output)


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    early_checks.check_folder("--workdir", str(tmp_path / "new/deep"))
    early_checks.check_file("--output", str(tmp_path / "new/out.jsonl"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]  # nothing is made
    with pytest.raises(ValueError, match="^--workdir=.*file: is a file; name a folder"):
        early_checks.check_folder("--workdir", str(tmp_path / "file"))
    for check in (early_checks.check_folder, early_checks.check_file):
        with pytest.raises(ValueError, match=r"^--output=.*: \S+/file cannot be written \(it is a file\)"):
            check("--output", str(tmp_path / "file/inside/out.jsonl"))
        with pytest.raises(ValueError, match=r"^--output=/proc/x/y: /proc cannot be written "):
            check("--output", "/proc/x/y")


@pytest.mark.parametrize(
    ("prepare_command", "path", "said"),
    [
        ("make --output=runs/c --n=6", "runs/c", "make it with: make --output=runs/c --n=6"),
        (
            "get --output=datasets, then pack --output=datasets/x/train; the same for dev",
            "datasets/x",
            "make it with: ",
        ),
        ("get --output=datasets; the same for test", "datasets/LibriSpeech", "make it with: "),
        ("get --output=datasets; the same for test", "my/train.jsonl", "check the path"),
        ("get --output=datasets; the same for test", "datasets2", "check the path"),
        ("get --output=datasets; the same for test", "datasets/mine.jsonl", "check the path"),
        ("get --output=datasets, for datasets/x.tar", "datasets/x.tar", "make it with: "),
        ("", "my/train.jsonl", "check the path"),
        ("make corpus", "my/train.jsonl", "make it with: make corpus"),
    ],
)
def test_only_the_configs_own_corpus_is_made_by_its_command(prepare_command, path, said):
    assert early_checks.how_to_make(path, prepare_command).startswith(said)


def test_decoding_wants_its_files_and_its_extra(tmp_path, monkeypatch):
    (tmp_path / "words.arpa").touch()
    monkeypatch.setattr(extras, "is_installed", lambda package: True)
    fields = {"method": "lexicon", "lm": str(tmp_path / "words.arpa"), "lexicon": ""}
    early_checks.check_decode(fields)
    with pytest.raises(ValueError, match=r"^decode.lm=\S+/wrods.arpa: no such file; did you mean \S+/words.arpa\?"):
        early_checks.check_decode({**fields, "lm": str(tmp_path / "wrods.arpa")})
    monkeypatch.setattr(extras, "is_installed", lambda package: package != "flashlight")
    early_checks.check_decode({**fields, "method": "beam"})
    with pytest.raises(ValueError, match=r"^decode.method=lexicon needs flashlight, .* pip install -e '.\[lm\]'"):
        early_checks.check_decode(fields)


@pytest.mark.parametrize(
    ("mode", "formats", "missing", "line"),
    [
        ("serve", [], "tornado", r"--mode=serve needs tornado, which is not installed: pip install -e '.\[serve\]'"),
        ("export", ["tflite_dynamic"], "ai_edge_litert", r"--export_formats=tflite needs .*'.\[tflite\]'"),
        ("export", ["onnx"], "tf2onnx", r"--export_formats=onnx needs tf2onnx, .*'.\[onnx\]'"),
        ("export", ["onxn"], "", "--export_formats=onxn: no such format; did you mean onnx?"),
    ],
)
def test_a_missing_extra_is_named_by_the_mode_that_needs_it(monkeypatch, mode, formats, missing, line):
    monkeypatch.setattr(extras, "is_installed", lambda package: package != missing)
    with pytest.raises(ValueError, match=f"^{line}"):
        early_checks.check_use(mode=mode, checkpoint="", inputs=[], output="", formats=formats)


def test_the_formats_of_an_export_are_those_that_it_writes():
    from engine.inference.export import portable

    assert set(early_checks.EXPORT_FORMATS) == set(portable.FILES)


def test_none_of_it_imports_tensorflow():
    modules = "config_file, early_checks, field_rules"
    code = f"import sys; from engine.config import {modules}; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("mode", "read"),
    [
        ("train", ["data"]),
        ("train_and_eval", ["data", "data.eval.dev", "data.eval.test"]),
        ("eval", ["data.eval.dev", "data.eval.test"]),
        ("tune_lm", ["data.eval.dev"]),
        ("doctor", ["data", "data.eval.dev", "data.eval.test"]),
        ("config", []),
        ("pseudo_label", []),
    ],
)
def test_a_mode_wants_only_the_noises_of_the_sets_that_it_reads(run_fields, mode, read):
    run_fields.data.eval.test = get_eval_set()
    fields = run_fields.to_dict()
    groups = ["data", "data.eval.dev", "data.eval.test"]
    assert [group for group in groups if early_checks.reads_set(fields, mode, group)] == read
