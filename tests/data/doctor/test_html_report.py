"""doctor.json and doctor.html: whole, escaped, self-contained."""

from __future__ import annotations

import base64
import configparser
import dataclasses
import json
from pathlib import Path

import numpy as np

from data.augmentation.examples import Example
from data.doctor.findings import find, sort
from data.doctor.html_report import bars, count_ticks, ticks, write_report
from data.doctor.report import (
    DoctorReport,
    Histogram,
    Memory,
    PlanStatistics,
    SetStatistics,
    SetWords,
    Shape,
    TrainingTime,
    Vocabulary,
)
from data.shards.records import encode_flac
from tests.helpers.pages import check_page

ROOT = Path(__file__).resolve().parents[3]


def make_report() -> DoctorReport:
    findings = [
        *find("empty_text", "train", {"<b>&": '"quoted"'}),
        *find("too_long", "train", {f"u{i}": f"{i} s" for i in range(250)}),
    ]
    histogram = Histogram.of("duration, s", np.array([1.0, 2.0, 2.0]), low=0.0)
    return DoctorReport(
        findings=sort(findings),
        sets=[SetStatistics("train", "jsonl m.jsonl", 3, 1.5, 2, 10, 50, 250, 3, [histogram])],
        plan=PlanStatistics(7, 14, 0.125, [Shape(2.0, 99, 7, 14, 0.125)]),
        vocabulary=Vocabulary({"|": 1, "A": 3, "Z": 0}, ["Z"], "Ü", 0.02, "Q"),
        memory=[Memory("training", 1, 2.0, 3 * 2**30, None)],
    )


def test_the_page_is_whole_escaped_and_needs_no_network(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path, title="a <run>")
    page = (tmp_path / "doctor.html").read_text()
    check_page(page)
    assert "a &lt;run&gt;" in page and "&lt;b&gt;&amp;" in page and "<b>" not in page
    assert "1 error, 1 warning" in page
    assert "u199<" in page and "u200<" not in page
    assert "The first 200 are shown" in page
    assert page.count("<rect") == 2


def test_json_has_what_the_page_leaves_out(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "new", title="run")
    fields = json.loads((tmp_path / "new/doctor.json").read_text())
    assert [item["count"] for item in fields["findings"]] == [1, 250]
    assert len(fields["findings"][1]["utterances"]) == 250
    assert fields["vocabulary"]["unused"] == ["Z"]


def test_bars_reach_from_the_axis_and_the_highest_fills_the_picture() -> None:
    histogram = Histogram.of("x", np.array([0.0] * 10 + [100.0]), low=0.0, high=100.0)
    first, last = bars(histogram)
    assert first[1:2] == (0.0,) and first[3] == 110.0
    assert last[1] + last[3] == 110.0 and last[3] == 11.0
    assert last[4] == "97.5 to 100: 1"
    assert [label for _, label in ticks(histogram)] == ["0", "25", "50", "75", "100"]


def test_the_marks_of_a_count_axis_begin_at_0_and_are_round() -> None:
    expected = {1: "0 1", 4: "0 1 2 3 4", 11: "0 5 10", 573: "0 200 400", 1_600: "0 500 1,000 1,500"}
    for most, labels in {**expected, 99_999: "0 25,000 50,000 75,000"}.items():
        found = count_ticks(Histogram("x", [0.0, 1.0], [most], 0.5))
        assert [label for _, label in found] == labels.split()
        assert found[0][0] == 110.0 and all(0.0 <= y <= 110.0 for y, _ in found)


def test_words_time_and_audio_are_on_the_page_and_escaped(tmp_path: Path) -> None:
    words = SetWords("eval <a>", 40, 20, [("<i>the</i>", 9)], 10, 7, [("<u>never", 10)])
    found = dataclasses.replace(
        make_report(), words=[words], time=TrainingTime(1_600, 300.0, 420.0, "from <79> measurements"),
        clips={("train", "u3"): b"</script>", ("train", "<b>&"): encode_flac(np.full(4_000, 0.25, np.float32))},
    )  # fmt: skip
    write_report(found, tmp_path, title="run")
    page = (tmp_path / "doctor.html").read_text()
    check_page(page)
    assert "5 min to 7 min, from &lt;79&gt; measurements" in page
    assert "eval &lt;a&gt;, never in training: 1 of 7" in page and "&lt;u&gt;never" in page and "<i>" not in page
    assert '&lt;u&gt;never</td><td class="number">10</td><td class="number">25.00</td>' in page
    # A clip that cannot be decoded has a player without a waveform.
    assert page.count("<audio") == 2 and page.count("<path") == 1
    assert page.count("v16") == 80  # the square root of 0.25, of 32


def test_every_template_travels_with_an_installed_package() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    templates = [path.relative_to(ROOT) for name in ("data", "engine") for path in (ROOT / name).rglob("*.jinja")]
    assert {"doctor.html.jinja", "report.html.jinja", "server_page.html.jinja"} <= {path.name for path in templates}
    for path in templates:
        assert config["options.package_data"][".".join(path.parent.parts)] == "*.jinja"


def test_examples_of_augmentation_have_players_of_original_and_altered_audio(tmp_path: Path) -> None:
    tones = [encode_flac(np.full(1600, level, np.float32)) for level in (0.1, 0.2, 0.3)]
    report = dataclasses.replace(
        make_report(),
        clips={("train", "u0"): tones[0]},
        examples=[Example("train", "u<1>", "white noise at 10.0 dB", tones[1], tones[2])],
    )
    write_report(report, tmp_path, title="run")
    page = (tmp_path / "doctor.html").read_text()
    check_page(page)
    assert "u&lt;1&gt;" in page and "white noise at 10.0 dB" in page
    assert 'data-clip="1"' in page and 'data-clip="2"' in page
    clips = json.loads(page.split('id="clips">')[1].split("</script>")[0])
    assert [base64.b64decode(clip) for clip in clips] == tones
    written = json.loads((tmp_path / "doctor.json").read_text())["augmentation"]
    assert written == [{"set": "train", "id": "u<1>", "what": "white noise at 10.0 dB"}]
    assert any("1 examples to listen to" in line for line in report.lines())
    write_report(make_report(), tmp_path, title="run")
    assert "Augmentation" not in (tmp_path / "doctor.html").read_text()
