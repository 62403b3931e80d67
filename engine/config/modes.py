"""Lists the modes of run.py: what each does, what it reads and writes, which flags it knows, and an example."""

from __future__ import annotations

import dataclasses

_RUN = frozenset({"config", "workdir", "strategy", "tpu"})
_USE = frozenset({"checkpoint", "weights", "inputs", "output"})
_DECODE = frozenset({"decode", "hot_words"})


@dataclasses.dataclass(frozen=True)
class Mode:
    """Describes one value of --mode.

    Attributes:
        summary: One sentence on what the mode does.
        reads: One sentence on what it reads.
        writes: One sentence on what it leaves behind.
        flags: Names of the flags that it knows, without --mode.
        example: A whole command.
    """

    summary: str
    reads: str
    writes: str
    flags: frozenset[str]
    example: str


MODES = {
    "train_and_eval": Mode(
        summary="Trains and evaluates; the same command resumes. This is the default.",
        reads="The config, its corpora (data.train, data.eval), the weights of model.init, and the workdir of an "
        "earlier start.",
        writes="The workdir: checkpoints, best/, metrics.jsonl, predictions, TensorBoard events, report.html.",
        flags=_RUN,
        example="python run.py --config=configs/base.py --workdir=runs/base",
    ),
    "train": Mode(
        summary="Trains without evaluating; the same command resumes.",
        reads="The config, its training corpus (data.train), the weights of model.init, and the workdir of an earlier "
        "start.",
        writes="The workdir: checkpoints, metrics.jsonl, TensorBoard events.",
        flags=_RUN,
        example="python run.py --config=configs/base.py --mode=train",
    ),
    "eval": Mode(
        summary="Evaluates the best checkpoint of a run, or the one that --checkpoint names.",
        reads="The config, its evaluation sets (data.eval), and the weights of the workdir or of --checkpoint.",
        writes="Lines in metrics.jsonl, predictions under eval/ and report.html in the workdir.",
        flags=_RUN | _DECODE | {"checkpoint", "weights"},
        example="python run.py --config=configs/base.py --mode=eval --workdir=runs/base",
    ),
    "continuous_eval": Mode(
        summary="Evaluates each checkpoint of a training that another process runs.",
        reads="The config, its evaluation sets (data.eval), and the checkpoints that appear in the workdir.",
        writes="WORKDIR/continuous_eval, with metrics, predictions and a report.",
        flags=_RUN | {"checkpoint"},
        example="python run.py --config=configs/base.py --mode=continuous_eval --workdir=runs/base",
    ),
    "doctor": Mode(
        summary="Examines the data of a config: files, texts, leaks, labels that do not fit, padding, memory.",
        reads="The config and all its corpora; no weights are needed, but the architecture of model.init is. A "
        "recognizer at --checkpoint ranks the transcripts that it does not find in their audio.",
        writes="doctor.json, doctor.html and, where utterances have errors, manifests without them in WORKDIR/cleaned; "
        "the exit status is 2 if there are errors.",
        flags=_RUN - {"tpu"} | {"checkpoint", "weights"},
        example="python run.py --config=configs/base.py --mode=doctor",
    ),
    "verify_resume": Mode(
        summary="Proves on your config that an interrupted run equals an uninterrupted one, bit by bit.",
        reads="The config and its corpora; it trains twice and interrupts the second run at random moments.",
        writes="Both runs in WORKDIR/verify_resume, and verify_resume.json.",
        flags=_RUN,
        example="python run.py --config=configs/debug.py --mode=verify_resume",
    ),
    "tune_lm": Mode(
        summary="Tunes the weights of a language model on half of eval.best_metric_set, and reports on the other half.",
        reads="The config with decode.method=lexicon, the set eval.best_metric_set, and the weights of the workdir "
        "or of --checkpoint.",
        writes="decode.json in the workdir or at --output, which --decode takes.",
        flags=_DECODE | {"config", "workdir", "checkpoint", "weights", "output"},
        example="python run.py --config=configs/base.py --mode=tune_lm --config.decode.method=lexicon "
        "--config.decode.lm=LM.arpa",
    ),
    "transcribe": Mode(
        summary="Writes the text of recordings, with times and confidences.",
        reads="Audio (--inputs) and a recognizer (--checkpoint): a workdir, a checkpoint, an export, or "
        "the name of published weights. Of a config it reads how to decode, if one is given.",
        writes="One file of transcripts at --output (.jsonl, .tsv, .txt), or subtitles (.srt, .vtt).",
        flags=_USE | _DECODE | {"config", "window_secs", "jit_compile", "output_format"},
        example="python run.py --mode=transcribe --checkpoint=runs/base --inputs=a.wav,folder/ --output=out.jsonl",
    ),
    "pseudo_label": Mode(
        summary="Transcribes audio without transcripts into a manifest to train on, filtered.",
        reads="Audio or manifests of it (--inputs), a recognizer (--checkpoint) as --mode=transcribe does, and "
        "config.pseudo_label, if a config is given.",
        writes="A manifest of format jsonl at --output, and OUTPUT.left_out.jsonl with the reasons; the same command "
        "continues an interrupted one.",
        flags=_USE | _DECODE | {"config", "window_secs", "jit_compile", "strategy"},
        example="python run.py --mode=pseudo_label --checkpoint=runs/base --inputs=unlabelled.jsonl "
        "--output=datasets/pseudo.jsonl",
    ),
    "align": Mode(
        summary="Finds when each word of known transcripts was said, and which transcripts do not match the audio.",
        reads="Audio (--inputs) with transcripts beside it, and a recognizer (--checkpoint).",
        writes="A folder at --output: alignments.jsonl, worst match first, and a Praat TextGrid of each recording.",
        flags=_USE,
        example="python run.py --mode=align --checkpoint=runs/base --inputs=folder/ --output=aligned",
    ),
    "segment": Mode(
        summary="Cuts long recordings with imperfect transcripts into utterances to train on.",
        reads="Audio (--inputs) with a text beside each recording (NAME.txt, .srt, .vtt, .TextGrid or .eaf), a "
        "recognizer (--checkpoint), and config.segment, if a config is given.",
        writes="A folder at --output: segments.jsonl, a manifest with offsets, left_out.jsonl with the reasons, and "
        "segments.html with the worst to listen to; the same command continues an interrupted one.",
        flags=_USE | {"config", "window_secs"},
        example="python run.py --mode=segment --checkpoint=runs/base --inputs=lectures/ --output=datasets/lectures",
    ),
    "export": Mode(
        summary="Writes a SavedModel that needs nothing but TensorFlow, and other formats beside it.",
        reads="A workdir or a checkpoint (--checkpoint), and recordings (--inputs) to compare the result on.",
        writes="A new folder at --output: the SavedModel, vocab.json, export.json and a model card.",
        flags=_USE | {"export_formats"},
        example="python run.py --mode=export --checkpoint=runs/base --output=exported/base",
    ),
    "average": Mode(
        summary="Averages the weights of several checkpoints of a run into one that every mode takes.",
        reads="A workdir (--checkpoint), and which of its checkpoints to average (--inputs): last:N, best:N by the "
        "metric of best/, or their paths. --weights=ema averages their averaged weights.",
        writes="A new folder at --output, a workdir with the averaged checkpoint as its best one.",
        flags=_USE,
        example="python run.py --mode=average --checkpoint=runs/base --inputs=last:5 --output=runs/base-average",
    ),
    "serve": Mode(
        summary="Answers HTTP requests with transcripts until a signal arrives.",
        reads="A recognizer (--checkpoint), as --mode=transcribe does, and recordings that clients send.",
        writes="No files, only answers.",
        flags=_DECODE | {"config", "checkpoint", "weights", "window_secs", "serve"},
        example="python run.py --mode=serve --checkpoint=runs/base --serve.port=8501",
    ),
    "report": Mode(
        summary="Writes the report of one run again, or compares runs.",
        reads="The workdirs that --inputs names.",
        writes="report.html in a run, or comparison.html for several; --output names another file.",
        flags=frozenset({"inputs", "output"}),
        example="python run.py --mode=report --inputs=runs/base,runs/other",
    ),
    "config": Mode(
        summary="Prints the config that a command would use, every field with its value.",
        reads="The config and the flags of any command that takes one; with a workdir, the values its run resolved.",
        writes="Flags to standard output, one a line; --flagfile=FILE reads them back.",
        flags=_RUN | _DECODE | {"checkpoint", "weights", "output"},
        example="python run.py --config=configs/base.py --config.seed=1 --mode=config > base.flags",
    ),
}
FLAGS_OF_MODE = {name: mode.flags for name, mode in MODES.items()}
# The modes of one run and its data; they need a config.
RUN_MODES = tuple(name for name, read in FLAGS_OF_MODE.items() if {"config", "workdir"} <= read)
