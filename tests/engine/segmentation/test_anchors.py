"""Letters that were heard as they are written, and where a recording is divided."""

from __future__ import annotations

import itertools
import random
import string

import pytest

from engine.inference.words import Timed
from engine.segmentation.anchors import Part, Run, divide, find_runs, split_letters


def make_words(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 8))) for _ in range(count)]


def make_timed(text: str) -> list[Timed]:
    """Letters of a second with a second of silence after each."""
    return [Timed(letter, 2.0 * i, 2.0 * i + 1, 1.0) for i, letter in enumerate(text)]


def garble(rng: random.Random, text: str, ratio: float) -> str:
    """Replaces so many letters by others, drops half as many, and puts in as many."""
    heard = []
    for letter in text:
        draw = rng.random() / ratio
        if not 0.5 < draw <= 0.75:
            heard.append(rng.choice(string.ascii_lowercase) if draw <= 0.5 else letter)
        if 0.75 < draw <= 1.0:
            heard.append(rng.choice(string.ascii_lowercase))
    return "".join(heard)


def test_only_runs_that_are_no_coincidence_count():
    heard, text = "onetwothreefourhmfivesixseven", "onetwothreefourzerozerofivesixseven"
    assert find_runs(heard, text) == [Run(0, 0, 15), Run(17, 23, 12)]
    assert find_runs("abcdefgh", "abcdefgh") == []
    assert find_runs("", text) == find_runs(heard, "") == []


def test_runs_go_forward_in_both():
    rng = random.Random(0)
    words = make_words(rng, 600)
    text = "".join(words[:250] + ["never", "said"] * 20 + words[250:400] + words[480:])
    heard = "".join(word if rng.random() < 0.9 else "hm" for word in words)
    runs = find_runs(heard, text)
    assert sum(run.length for run in runs) > 1500
    assert all(heard[run.heard : run.heard + run.length] == text[run.text : run.text + run.length] for run in runs)
    assert all(a.heard + a.length <= b.heard and a.text + a.length <= b.text for a, b in itertools.pairwise(runs))
    assert runs[-1].text > len(text) - 300


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.45])
def test_runs_of_a_poor_recognizer_lie_where_they_belong(ratio):
    rng = random.Random(0)
    passages = ["".join(make_words(rng, 2_000)) for _ in range(4)]
    # The second passage is not in the transcript; the third was not said.
    said, text = [passages[0], passages[1], passages[3]], passages[0] + passages[2] + passages[3]
    heard = [garble(rng, passage, ratio) for passage in said]
    runs = find_runs("".join(heard), text)
    second, last = len(heard[0]), len(heard[0]) + len(heard[1])
    assert not [run for run in runs if second < run.heard < last - run.length]
    for first_heard, first_text, passage in ((0, 0, heard[0]), (last, len(text) - len(passages[3]), heard[2])):
        own = [run for run in runs if first_heard <= run.heard < first_heard + len(passage)]
        assert len(own) >= 3
        # A letter too many or too few shifts what follows.
        assert all(abs((run.heard - first_heard) - (run.text - first_text)) < 200 for run in own)


def test_what_is_not_in_the_transcript_hides_nothing_after_it():
    rng = random.Random(1)
    words = make_words(rng, 2_000)
    # Of the first half the recognizer knows nothing; it is in the transcript all the same.
    heard = "".join([*make_words(rng, 1_000), *words[1_000:]])
    runs = find_runs(heard, "".join(words))
    assert sum(run.length for run in runs) > 0.9 * len("".join(words[1_000:]))


def test_a_recording_is_divided_between_known_words_alone():
    # 12 letters are known, from the second of the third word on.
    words = ["ab", "cd", "efgh", "ij", "klmn", "opqrst"]
    heard = make_timed("xxxx" + "fghijklmnopq" + "xxxx")
    parts = list(divide(heard, words, num_frames=40, part_frames=1, secs_per_frame=1.0))
    # Not before "ij", after three known letters, nor before "opqrst", of which three are known; before "klmn", whose
    # first letter is heard in second 18.
    assert parts == [Part(0, 18, 0, 4), Part(18, 40, 4, 6)]
    assert list(divide(heard, words, num_frames=40, part_frames=19, secs_per_frame=1.0)) == [Part(0, 40, 0, 6)]
    assert list(divide([], words, num_frames=100, part_frames=30, secs_per_frame=1.0)) == [Part(0, 100, 0, 6)]


def test_letters_of_a_token_share_its_time():
    word = Timed("one", 1.0, 2.5, 0.9, (Timed("on", 1.0, 2.0, 0.8), Timed("e", 2.2, 2.5, 1.0)))
    assert split_letters([word]) == [Timed("o", 1.0, 1.5, 0.8), Timed("n", 1.5, 2.0, 0.8), Timed("e", 2.2, 2.5, 1.0)]
