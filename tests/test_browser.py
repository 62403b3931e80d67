"""The pages in a real browser: they render, sort, filter and play; no network, no error in the console."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from data.common.page import page_environment
from data.doctor.html_report import write_report as write_doctor
from data.shards.records import encode_flac
from data.text.tokenizer import load_tokenizer
from engine.actions.writers import PredictionsWriter
from engine.common import files
from engine.evaluation.metrics import TranscriptionScore
from engine.modes import report
from engine.report.writer import ReportWriter
from tests.data.doctor.test_html_report import make_report
from tests.helpers.data_toys import eval_data
from tests.helpers.experiment_toys import make_parts

SECS = {"long": 1.0, "short": 0.5, "middle": 0.75, "hebrew": 0.25}
SAID = {"long": "one two three", "short": "four", "middle": "five six", "hebrew": "שלום עולם"}
HEARD = {
    10: {"long": "one two three", "short": "four", "middle": "five", "hebrew": ""},
    20: {"long": "one too", "short": "for four", "middle": "five six", "hebrew": "שלום"},
}


def find_browser() -> str:
    """A Chromium of the system, or one that playwright has fetched; "" without any."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((path for path in map(shutil.which, names) if path), "")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="the pages are not tried: playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        path = find_browser() or playwright.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip("the pages are not tried: no Chromium here; install one, or `playwright install chromium`")
        # Without a sandbox, since tests may run as root; the pages are our own.
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run that was evaluated twice on four utterances with audio."""
    corpus, folder = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("runs") / "run"
    lines = []
    for name, secs in SECS.items():
        tone = 0.3 * np.sin(np.arange(round(secs * 16_000)) * 440 * 2 * np.pi / 16_000)
        soundfile.write(corpus / f"{name}.wav", tone, 16_000)
        line = {"audio_filepath": f"{name}.wav", "text": SAID[name], "duration": secs, "speaker": f"speaker of {name}"}
        lines.append(json.dumps(line) + "\n")
    (corpus / "manifest.jsonl").write_text("".join(lines))
    data = eval_data(
        tokenizer=load_tokenizer(""), text_normalization="unicode", format="jsonl",
        input=str(corpus / "manifest.jsonl"),
        batch_size=4,
    )  # fmt: skip
    step = tf.Variable(0, dtype=tf.int64)
    for number, heard in HEARD.items():
        step.assign(number)
        score = TranscriptionScore()
        for name, text in heard.items():
            score.add(name, SAID[name], text)
        train = {"step": number, "split": "train", "loss": 90.0 / number, "learning_rate": 0.1}
        output = {"dev": score.summary()}
        files.append_jsonl(folder / "metrics.jsonl", train, {"step": number, "split": "dev", **score.summary()})
        PredictionsWriter(workdir=folder, scores={"dev": score}, data={"dev": data}, global_step=step)(output)
    ReportWriter(
        workdir=folder, global_step=step, data={"dev": data}, page_environment=page_environment, max_utterances=100,
        max_audio_mb=1.0,
    )(output)  # fmt: skip
    return folder


class Visit:
    """A page that was opened, and what it complained of or asked the network for."""

    def __init__(self, browser, path: Path, **options):
        self.page = browser.new_page(**options)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.on("request", self._note)
        self.url = path.as_uri()
        self.page.goto(self.url)

    def _note(self, request) -> None:
        if request.url != self.url and not request.url.startswith(("data:", "blob:")):
            self.complaints.append(request.url)

    def column(self, table: str, number: int) -> list[str]:
        """Texts of the visible cells."""
        cells = self.page.locator(f"{table} tbody tr:visible td:nth-child({number})")
        return [text.strip() for text in cells.all_inner_texts()]

    def texts(self, selector: str) -> list[str]:
        """Texts of all elements, in order."""
        return [(text or "").strip() for text in self.page.locator(selector).all_text_contents()]

    def end(self) -> None:
        assert self.complaints == []
        self.page.close()


def test_the_error_report_renders_sorts_filters_and_plays(browser, workdir):
    visit = Visit(browser, workdir / "report.html")
    page, table = visit.page, "#utterances-1"
    assert page.title() == "Error report: run"
    assert page.locator("h1").inner_text() == "Error report: run"
    name, rate = page.locator("#rates tbody td").all_inner_texts()[:2]
    assert name == "dev" and rate.startswith("50.00 (")  # 4 of 8 words, and the interval
    assert page.locator("svg polyline").count() == 3  # training loss, WER, learning rate
    assert all(box["width"] > 50 for box in (found.bounding_box() for found in page.locator("svg.curves").all()))

    # The worst utterances end where errors end: "middle" has none.
    assert visit.column(table, 1) == ["long", "hebrew", "short"]
    assert visit.column(table, 4) == ["2", "1", "1"]
    assert page.get_attribute(f"{table} th:nth-child(4)", "aria-sort") == "descending"
    page.click(f"{table} th:nth-child(3) button")
    assert visit.column(table, 3) == ["0.2", "0.5", "1.0"]
    page.focus(f"{table} th:nth-child(3) button")
    page.keyboard.press("Enter")
    assert visit.column(table, 1) == ["long", "short", "hebrew"]
    assert page.get_attribute(f"{table} th:nth-child(3)", "aria-sort") == "descending"

    page.fill("input[data-filters=utterances-1]", "TOO")
    assert visit.column(table, 1) == ["long"]
    assert page.inner_text("[data-counts=utterances-1]") == "1 of 3"
    page.fill("input[data-filters=utterances-1]", "speaker of")
    page.select_option("select[data-picks=utterances-1]", "better")
    assert visit.column(table, 1) == ["hebrew"]
    page.select_option("select[data-picks=utterances-1]", "")
    page.fill("input[data-filters=words-1]", "עולם")
    assert visit.column("#words-1", 3) == ["deleted"]

    long = page.locator(f"{table} tr", has_text="speaker of long")
    pairs = [text.split() for text in long.locator(".pair").all_inner_texts()]
    assert pairs == [["one"], ["two", "too"], ["three", "∅"]]
    hebrew = page.locator(f"{table} tr", has_text="speaker of hebrew").locator(".aligned")
    assert hebrew.evaluate("(node) => getComputedStyle(node).direction") == "rtl"
    page.click("summary >> text=Worse")
    assert page.locator("details[open] .aligned").first.is_visible()

    player = long.locator("audio")
    player.click(position={"x": 20, "y": 17})  # its button
    page.wait_for_function("(node) => node.ended", arg=player.element_handle(), timeout=20_000)
    assert player.evaluate("(node) => node.duration") == pytest.approx(1.0, abs=0.01)
    assert player.evaluate("(node) => node.error") is None
    # Chromium cannot seek in so short a clip: a click on its waveform plays it from its start.
    wave = long.locator("svg.wave")
    assert wave.locator("path").get_attribute("d").count("M") == 80
    wave.click()
    page.wait_for_function("(node) => node.ended", arg=player.element_handle(), timeout=20_000)
    assert player.evaluate("(node) => node.error") is None
    assert wave.locator("line").get_attribute("x1") == "160"
    visit.end()


def test_the_report_is_headed_by_tiles_and_the_config(browser, workdir):
    visit = Visit(browser, workdir / "report.html")
    tiles = dict(zip(visit.page.locator(".tile dt").all_inner_texts(), visit.texts(".tile .value"), strict=True))
    assert list(tiles) == ["WER", "CER", "Audio", "Updates", "Time", "Parameters"]
    assert (tiles["WER"], tiles["Updates"], tiles["Parameters"]) == ("50.00 %", "20", "unknown")
    assert visit.texts(".facts dt")[:2] == ["Command", "Commit"]
    assert visit.texts(".axis")[:2] == ["update", "loss, nats"]
    visit.end()


def test_columns_of_numbers_sort_as_numbers_and_cells_without_a_value_come_last(browser, workdir, tmp_path):
    cells = ["10", "-3", "–", "< 0.001", "1,200", "9"]
    rows = "".join(f"<tr><td>u{cell[:2]}</td><td>{cell.replace('<', '&lt;')}</td></tr>" for cell in cells)
    table = (
        '<table id="t"><thead><tr><th><button>Id</button></th><th class="number"><button>N</button></th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    page = (workdir / "report.html").read_text().replace("<header>", f"{table}<header>")
    (tmp_path / "sorted.html").write_text(page)
    visit = Visit(browser, tmp_path / "sorted.html")
    for ends in (["-3", "< 0.001", "9", "10", "1,200", "–"], ["1,200", "10", "9", "< 0.001", "-3", "–"]):
        visit.page.click("#t th:nth-child(2) button")
        assert visit.column("#t", 2) == ends
    visit.end()


def test_a_table_that_is_wider_than_a_phone_says_so_and_scrolls_by_keyboard(browser, workdir):
    visit = Visit(browser, workdir / "report.html", viewport={"width": 390, "height": 800})
    box = visit.page.locator(".scroll", has=visit.page.locator("#rates"))
    hint = 'getComputedStyle(node, "::before").content'
    assert "Scroll sideways" in box.evaluate(f"(node) => {hint}")
    box.focus()
    visit.page.keyboard.press("ArrowRight")
    visit.page.wait_for_function("(node) => node.scrollLeft > 0", arg=box.element_handle())
    # The heads of the worst utterances stay there, so that they can be sorted on a phone.
    visit.page.click("#utterances-1 th:nth-child(1) button")
    assert visit.page.get_attribute("#utterances-1 th:nth-child(1)", "aria-sort") == "ascending"
    visit.page.set_viewport_size({"width": 2000, "height": 800})
    visit.page.wait_for_function('(node) => !node.classList.contains("wide")', arg=box.element_handle())
    visit.end()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_narrow_screen_and_follows_its_colours(browser, workdir, tmp_path, scheme):
    write_doctor(make_report(), tmp_path, title="run")
    other = tmp_path / "other"
    shutil.copytree(workdir, other)
    report.run(parts=make_parts(), inputs=[str(workdir), str(other)], output=str(tmp_path / "comparison.html"))
    for path in (workdir / "report.html", tmp_path / "comparison.html", tmp_path / "doctor.html"):
        visit = Visit(browser, path, viewport={"width": 380, "height": 700}, color_scheme=scheme)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 380, path.name
        colour = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colour == {"light": "rgb(247, 248, 250)", "dark": "rgb(20, 23, 29)"}[scheme]
        visit.end()


def test_what_slips_into_a_page_neither_runs_nor_loads(browser, workdir, tmp_path):
    slipped = (
        '<script>window.ran = 1</script><img src="data:,x" onerror="window.ran = 2"><p id="p" style="color: red">p</p>'
        '<img src="http://127.0.0.1:9/x.png"><link rel="stylesheet" href="http://127.0.0.1:9/x.css">'
        '<iframe src="http://127.0.0.1:9/"></iframe><form action="http://127.0.0.1:9/"><button id="f">f</button></form>'
    )
    page = (workdir / "report.html").read_text().replace("<header>", f"{slipped}<header>")
    (tmp_path / "slipped.html").write_text(page)
    visit = Visit(browser, tmp_path / "slipped.html")
    visit.page.evaluate("document.getElementById('f').form.requestSubmit()")
    assert visit.page.evaluate("window.ran") is None
    assert visit.page.evaluate("getComputedStyle(document.getElementById('p')).color") != "rgb(255, 0, 0)"
    assert len([text for text in visit.complaints if "Content Security Policy" in text]) >= 6
    assert visit.page.url == visit.url
    visit.page.close()


def test_the_doctors_page_sorts_and_plays(browser, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 48_000).astype(np.float32)
    report = dataclasses.replace(make_report(), clips={("train", "u0"): encode_flac(noise)})
    write_doctor(report, tmp_path, title="run")
    visit = Visit(browser, tmp_path / "doctor.html")
    assert visit.texts(".figures .axis") == ["utterances", "duration, s"]
    player = visit.page.locator("audio")
    visit.page.locator("summary").last.click()
    player.click(position={"x": 20, "y": 17})  # its button
    visit.page.wait_for_function("(node) => node.ended", arg=player.element_handle(), timeout=20_000)
    assert player.evaluate("(node) => node.duration") == pytest.approx(3.0, abs=0.01)
    # A click in the middle of the waveform plays from there, and the cursor follows.
    visit.page.click("svg.wave")
    cursor = visit.page.locator("svg.wave line").element_handle()
    visit.page.wait_for_function("(line) => line.getAttribute('x1') < 150", arg=cursor)
    assert float(cursor.get_attribute("x1")) > 70
    visit.page.locator("summary").last.click()
    visit.page.locator("summary").last.click()
    table = "details:last-of-type"
    visit.page.click(f"{table} th:nth-child(2) button")
    assert visit.column(table, 2)[:12] == [f"{number} s" for number in range(12)]
    visit.end()
