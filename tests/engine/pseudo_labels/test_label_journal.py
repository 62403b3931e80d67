"""Which row of an index counts after several interruptions, and what an older version left behind."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from engine.pseudo_labels.label_journal import LabelJournal


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "out.jsonl.partial")


def row(index, version=0):
    return {"name": f"{index}.wav", "labels": [], "index": index, "version": {"audio": [version]}}


def append(path, *groups):
    """Appends groups of (index, version) as one process does."""
    with LabelJournal(path, {}) as journal:
        for group in groups:
            journal.append([row(*pair) for pair in group])
        return found(journal)


def found(journal):
    return [(row["index"], row["version"]["audio"][0]) for row in journal.latest()]


def test_a_new_journal_has_no_rows(path):
    with LabelJournal(path, {}) as journal:
        assert (journal.num_done, journal.last_name, found(journal)) == (0, "", [])


def test_the_last_row_of_an_index_counts_and_the_order_is_that_of_the_inputs(path):
    assert append(path, [(0, 0), (1, 0)], [(2, 0), (3, 0)]) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    # Two have changed; the next process was ended between them, and did none of the others.
    assert append(path, [(1, 1)]) == [(0, 0), (1, 1), (2, 0), (3, 0)]
    assert append(path, [(1, 2), (3, 2)], [(4, 2)]) == [(0, 0), (1, 2), (2, 0), (3, 2), (4, 2)]
    assert append(path, [(0, 3), (5, 3)]) == [(0, 3), (1, 2), (2, 0), (3, 2), (4, 2), (5, 3)]
    with LabelJournal(path, {}) as journal:
        assert found(journal) == [(0, 3), (1, 2), (2, 0), (3, 2), (4, 2), (5, 3)]
        assert (journal.num_done, journal.last_name, journal.num_unversioned) == (6, "5.wav", 0)


def test_rows_that_are_appended_while_others_are_read_are_left_out(path):
    append(path, [(0, 0), (1, 0), (2, 0)])
    with LabelJournal(path, {}) as journal:
        rows = journal.latest()
        assert next(rows) == row(0)
        journal.append([row(1, 1), row(3, 1)])
        assert list(rows) == [row(1), row(2)]
        assert found(journal) == [(0, 0), (1, 1), (2, 0), (3, 1)]


def test_the_last_name_is_that_of_the_last_input_and_not_of_the_last_line(path):
    append(path, [(0, 0), (1, 0), (2, 0)])
    append(path, [(1, 1)])
    with LabelJournal(path, {}) as journal:
        assert (journal.num_rows, journal.num_done, journal.last_name) == (4, 3, "2.wav")


def test_the_rows_of_an_older_version_keep_their_place(path):
    with LabelJournal(path, {}) as journal:
        journal.append([{"name": f"{index}.wav", "labels": []} for index in range(3)])
        journal.append([row(3)])
    with LabelJournal(path, {}) as journal:
        assert (journal.num_done, journal.num_unversioned) == (4, 3)
        journal.append([row(1, 1)])
        assert [(row["index"], "version" in row) for row in journal.latest()] == [
            (0, False), (1, True), (2, False), (3, True)
        ]  # fmt: skip


@pytest.mark.parametrize("index", [2, -1, 10**30, True, "1", None])
def test_an_impossible_index_is_refused_in_one_line(path, index):
    append(path, [(0, 0)])
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({**row(1), "index": index}) + "\n")
    with pytest.raises(ValueError, match=r"index of a row is .*, wanted 0 to 1; delete the file to begin anew$"):
        append(path)


def test_many_rows_need_no_more_memory_than_some(tmp_path):
    peaks = []
    for count in (1_000, 20_000):
        path = str(tmp_path / f"{count}.partial")
        append(path, [(index, 0) for index in range(count)])
        append(path, [(index, 1) for index in range(0, count, 3)])
        tracemalloc.start()
        with LabelJournal(path, {}) as journal:
            assert sum(1 for _ in journal.latest()) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
