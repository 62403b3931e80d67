"""Which flags of run.py each mode reads: one that would do nothing is refused, before TensorFlow starts."""

from __future__ import annotations

from collections.abc import Iterable

_RUN = {"config", "workdir", "strategy", "tpu"}
_USE = {"checkpoint", "weights", "inputs", "output"}
_DECODE = {"decode", "hot_words"}

FLAGS_OF_MODE: dict[str, set[str]] = {
    "train": _RUN,
    "train_and_eval": _RUN,
    "eval": _RUN | _DECODE | {"checkpoint", "weights"},
    "continuous_eval": _RUN | {"checkpoint"},
    "doctor": _RUN - {"tpu"},
    "verify_resume": _RUN,
    "tune_lm": _DECODE | {"config", "workdir", "checkpoint", "weights", "output"},
    # Of its config a transcription reads how to decode.
    "transcribe": _USE | _DECODE | {"config", "window_secs", "output_format"},
    "align": _USE,
    "export": _USE | {"export_formats"},
    "serve": _DECODE | {"config", "checkpoint", "weights", "window_secs", "serve"},
    "report": {"inputs", "output"},
}


def check_flags(mode: str, given: Iterable[str]) -> None:
    """Refuses flags that the mode does not read, and a run without its config.

    Args:
        mode: Of `FLAGS_OF_MODE`.
        given: The flags of run.py that stand on its command line, without fields of the config.

    Raises:
        ValueError: Names the flags, and the modes that read them.
    """
    given = list(given)
    unread = [name for name in given if name not in FLAGS_OF_MODE[mode]]
    if unread:
        reasons = []
        for name in unread:
            readers = [other for other, known in FLAGS_OF_MODE.items() if name in known]
            reasons.append(f"--{name} is for {' | '.join(readers)}")
        raise ValueError(f"--mode={mode} does not read {'; '.join(reasons)}: leave it out, or set another --mode")
    if "config" not in given and FLAGS_OF_MODE[mode] >= {"config", "workdir"}:
        raise ValueError("--config is missing: for example --config=configs/base.py")
