"""Log lines for people: plain sentences, no internals of libraries, whole above a bar."""

from __future__ import annotations

import logging
import sys

import pytest
import tqdm
from absl import logging as absl_logging

from engine.console import log


@pytest.fixture(autouse=True)
def configured():
    handler = absl_logging.get_absl_handler()
    stream, formatter, filters = handler.python_handler.stream, handler.python_handler.formatter, list(handler.filters)
    levels = {name: logging.getLogger(name).level for name in ("absl", "tensorflow")}
    absl_logging.set_verbosity(absl_logging.INFO)
    log.configure_logging()
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    handler.python_handler.setStream(stream)
    handler.setFormatter(formatter)
    handler.filters = filters


def emit(level, message, pathname="engine/experiment.py"):
    record = logging.LogRecord("absl", level, pathname, 1, message, (), None)
    handler = absl_logging.get_absl_handler()
    if handler.filter(record):
        handler.emit(record)


def lines_of(capsys):
    """What stands on stderr, without what absl says once because no flags are parsed in a test."""
    return [line for line in capsys.readouterr().err.splitlines() if "before flag parsing" not in line]


def test_information_is_a_plain_sentence_and_a_warning_says_so(capsys):
    emit(logging.INFO, "starting at update 0 of 20")
    emit(logging.WARNING, "vocab.json has changed")
    assert lines_of(capsys) == ["starting at update 0 of 20", "warning: vocab.json has changed"]


def test_internals_of_libraries_are_left_out_but_for_errors(capsys):
    emit(logging.INFO, "Sharding callback duration", "/x/site-packages/tensorflow/python/saver.py")
    emit(logging.WARNING, "gradients do not exist", "/x/site-packages/tf_keras/src/optimizer.py")
    emit(logging.ERROR, "out of memory", "/x/site-packages/tensorflow/python/client.py")
    assert lines_of(capsys) == ["error: out of memory"]


def test_a_line_stands_whole_above_a_bar(capsys):
    bar = tqdm.tqdm(total=2, file=sys.stderr)
    emit(logging.INFO, "a line")
    bar.close()
    assert "a line\n" in capsys.readouterr().err.replace("\r", "\n")
