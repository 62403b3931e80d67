"""The page: whole, escaped, without network; audio within its limit; any kind of evaluation."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from data.common.page import page_environment
from engine.report.facts import RunFacts, Tile
from engine.report.page import (
    bar_scale,
    collect_clips,
    heat_names,
    heat_of,
    percent,
    render_report,
    training_figures,
)
from tests.engine.report.toys import build, make_predictions
from tests.helpers.pages import check_page

HOSTILE = '</script><b onclick="x">&'
FACTS = RunFacts(config={"model": {"preset": "<tiny>"}, HOSTILE: HOSTILE}, environment={})
FOLDER = Path(__file__).resolve().parents[3] / "engine/report"


def render(sets, *, clips=None, figures=(), title="run", **more):
    return render_report(**more,
        environment=page_environment(FOLDER), title=title, step=12_345, facts=FACTS, figures=figures,
        sets=sets, clips=clips or collect_clips(sets, lambda name, utterance_id: None, max_bytes=1),
    )  # fmt: skip


def test_the_page_is_whole_and_all_text_is_escaped():
    texts = [(f"a {HOSTILE}", f"b {HOSTILE} {HOSTILE}"), ("שלום עולם", "שלום")]
    predictions = make_predictions(texts, speakers=[HOSTILE, ""], secs=[1.0, 2.0])
    before = {record["utterance_id"]: {**record, "errors": 0, "hypothesis": HOSTILE} for record in predictions}
    lines = [{"step": step, "split": HOSTILE, "wer": 0.5, "loss": 1.0} for step in (1, 2)]
    one = build(predictions, name=HOSTILE, previous=(7, before))
    clips = collect_clips([one], lambda name, utterance_id: b"</script>", max_bytes=1_000)
    page = render(
        [one], clips=clips, figures=training_figures(lines, [HOSTILE]), title=HOSTILE,
        tiles=[Tile(HOSTILE, HOSTILE, HOSTILE)],
    )  # fmt: skip
    check_page(page)
    assert "<b onclick" not in page and "&lt;b onclick" in page and "&lt;tiny&gt;" in page
    assert page.count("</script>") == 2  # the page's own
    assert "Weights of update 12,345" in page and "Against update 7" in page
    assert 'dir="auto"' in page and "עולם" in page
    assert percent(None) == "–" and percent(0.12345) == "12.35"


@pytest.mark.parametrize("texts", [[], [("", "")], [("a", "a")], [("", "a b")]])
def test_small_sets_make_a_page(texts):
    page = render([build(make_predictions(texts))])
    check_page(page)
    assert ("No utterances." in page) == (not texts)
    assert ("Every word is right." in page) == (bool(texts) and texts[0][0] == texts[0][1])


def test_several_sets_stand_on_one_page_with_their_own_ids():
    sets = [build(make_predictions([("a", "b")]), name=name) for name in ("dev", "dev-ema", "test")]
    page = render(sets)
    check_page(page)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)) and {"utterances-1", "utterances-3", "words-2", "clips"} <= set(ids)


def test_audio_is_kept_within_its_limit_the_worst_of_each_set_first():
    sets = [build(make_predictions([("a b", ""), ("a", "")]), name=name) for name in ("dev", "dev-ema", "test")]
    content = bytes(300)  # 400 characters of base64
    clips = collect_clips(
        sets,
        lambda name, utterance_id: content,
        max_bytes=1_300,
        source_of=lambda name: name.removesuffix("-ema"),
    )
    # Worst of dev, shared with dev-ema; worst of test; second of dev, shared. A fourth would not fit.
    assert clips.number_of == {
        ("dev", "u000"): 0, ("dev-ema", "u000"): 0, ("test", "u000"): 1, ("dev", "u001"): 2, ("dev-ema", "u001"): 2
    }  # fmt: skip
    page = render(sets, clips=clips)
    stored = json.loads(re.search(r'id="clips">(.*?)</script>', page)[1])
    assert [base64.b64decode(text) for text in stored] == [content] * 3
    assert page.count("data-clip=") == 5


def test_waveforms_count_toward_the_limit_of_the_audio():
    sets = [build(make_predictions([("a b", ""), ("a", "")]))]
    content, wave = bytes(300), "M1 2v3" * 10  # 400 characters of base64, 60 of waveform
    fields = {"audio": lambda name, utterance_id: content, "wave_path": lambda audio: wave}
    for max_bytes, num_clips in ((459, 0), (460, 1), (919, 1), (920, 2)):
        clips = collect_clips(sets, max_bytes=max_bytes, **fields)
        assert len(clips.encoded) == len(clips.waves) == num_clips
    page = render(sets, clips=clips)
    check_page(page)
    assert page.count(f'<path d="{wave}"/>') == 2


def test_bars_of_all_sets_share_one_of_a_few_scales_that_begin_at_0():
    assert [bar_scale(rates) for rates in ([], [0.0], [0.05], [0.051, 0.01], [0.3], [0.9], [1.5])] == [
        0.05, 0.05, 0.05, 0.1, 0.5, 1.0, 1.0
    ]  # fmt: skip
    right = [("a b c d e", "a b c d e")] * 4
    sets = [build(make_predictions([("a b c d e", "a b c d"), *right]), name="dev")]
    sets.append(build(make_predictions([("a b", "a"), *right]), name="test"))
    page = render(sets)
    # 1 of 25 words and 1 of 22: both of 5 %, whatever the other is.
    assert re.findall(r'<rect width="([0-9.]+)" height="9"/>', page) == ["80.0", "90.9"]
    assert page.count("<span>0</span><span>5 %</span>") == 2


def test_colors_of_the_confusion_matrix_mean_the_same_on_every_page():
    assert [heat_of(ratio) for ratio in (0.001, 0.01, 0.0199, 0.04, 0.07, 0.15, 0.3, 0.5, 1.0)] == [
        0, 1, 1, 2, 3, 4, 5, 6, 6
    ]  # fmt: skip
    names = heat_names()
    assert (names[0], names[1], names[6], len(names)) == ("below 1 %", "1 to 2 %", "50 % and more", 7)
    page = render([build(make_predictions([("abababab", "abababaa")] * 10))])
    assert 'class="heat5" title="b recognized as a: 10 of 40"' in page
    assert all(f'<span class="heat{number}">{name}</span>' in page for number, name in enumerate(names))


def test_curves_are_those_that_metrics_have():
    train = {"step": 1, "split": "train", "loss": 2.0, "learning_rate": 0.1, "audio_secs_per_sec": 30.0}
    titles = [figure.title for figure in training_figures([train, {"step": 1, "split": "dev", "wer": 0.5}], ["dev"])]
    assert titles == [
        "Loss per utterance", "Word error rate, %", "Learning rate", "Throughput, seconds of audio a second"
    ]  # fmt: skip
    assert training_figures([], ["dev"]) == []
    two_views = training_figures([{**train, "consistency_loss": 0.5}], [])
    assert [figure.title for figure in two_views][:2] == ["Loss per utterance", "Auxiliary losses per utterance"]
    assert [line.name for line in two_views[1].lines] == ["consistency"]


def test_slices_are_tables_of_their_own_and_escaped():
    predictions = make_predictions([("a b", "a"), ("a", "a")])
    for record, accent in zip(predictions, (HOSTILE, "plain"), strict=True):
        record["slices"] = {"home_accent": accent}
    page = render([build(predictions)])
    check_page(page)
    assert "<h3>By home accent</h3>" in page and "<button>Home accent</button>" in page
    assert "<b onclick" not in page and page.count('<td class="name">plain</td>') == 1
    row = page[page.index('<td class="name">plain</td>') :].split("</tr>")[0]
    assert re.findall(r'<td class="number">([^<]*)</td>', row)[-3:] == ["0.00", "1", "1"]  # CER, words, utterances
