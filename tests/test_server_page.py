"""The server's page in a real browser, with a microphone that plays a file: record, drop, download, be refused.

The server is real and the recognizer is not: it tells tones apart, and so hears what really arrives.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re

import numpy as np
import pytest
import soundfile

from data.audio.streaming import duration_samples, stream_audio
from data.common.page import page_environment
from engine.inference.serving.http_server import Limits
from engine.inference.serving.page import render_page
from engine.inference.serving.recognizer import Recognizer
from engine.inference.transcriber import SAMPLE_RATE, Summary, Transcript
from engine.inference.words import Timed
from tests.engine.inference.serving.test_http_server import LIMITS, Running
from tests.test_browser import find_browser

MAX_SECS = 10.0
PUBLIC = "earshot.example"  # a name that does not mean this machine
TONES = {"low": 500, "middle": 1000, "high": 2000}
SAID = ["low", "high", "middle", "high"]
ALL_SAID = re.compile(r"^Recording: 4\.\d s$")  # counted in samples, whatever the clock says
WORD_SECS = 0.25
FRAME = SAMPLE_RATE // 20


def speak(words, rate=SAMPLE_RATE, *, pause_secs=0.15, silence_secs=1.0) -> bytes:
    """A WAV file of tones between silences, long enough for a microphone to start in."""
    times = np.arange(round(WORD_SECS * rate)) / rate
    parts = [np.zeros(round(silence_secs * rate))]
    for word in words:
        parts += [0.4 * np.sin(2 * np.pi * TONES[word] * times), np.zeros(round(pause_secs * rate))]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate([*parts, parts[0]]), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def hear(waveform) -> list[Timed]:
    """The tones of a waveform [T], frame by frame; what is shorter than three frames is the edge of one."""
    heard = []
    for start in range(0, len(waveform) - FRAME + 1, FRAME):
        frame = waveform[start : start + FRAME]
        if np.sqrt(np.mean(frame**2)) < 0.02:
            heard.append("")
            continue
        peak = np.argmax(np.abs(np.fft.rfft(frame * np.hanning(FRAME)))) * SAMPLE_RATE / FRAME
        heard.append(min(TONES, key=lambda word: abs(TONES[word] - peak)))
    words, begin = [], 0
    for index in range(1, len(heard) + 1):
        if index == len(heard) or heard[index] != heard[begin]:
            if heard[begin] and index - begin >= 3:
                confidence = {"low": 0.99, "middle": 0.7, "high": 0.3}[heard[begin]]
                start, end = begin * FRAME / SAMPLE_RATE, index * FRAME / SAMPLE_RATE
                words.append(Timed(heard[begin], start, end, confidence, (Timed("x", start, end, confidence),)))
            begin = index
    return words


RATES: list[int] = []  # of the files that arrived


def transcribe_files(paths):
    RATES.extend(soundfile.info(path).samplerate for path in paths)
    found = {path: np.concatenate(list(stream_audio(path))) for path in paths}
    transcripts = [Transcript(path, tuple(hear(wave)), len(wave) / SAMPLE_RATE) for path, wave in found.items()]
    return Summary(tuple(transcripts), (), 0.0, 0.0)


@pytest.fixture(scope="module")
def server():
    limits = {**LIMITS, "max_body_bytes": 1_000_000, "body_timeout_secs": 20.0, "idle_timeout_secs": 20.0}
    limits["cors_origins"] = (f"http://{PUBLIC}",)  # whose name is then one of the server's
    page = render_page(page_environment, limits=Limits(**limits), max_audio_secs=MAX_SECS)
    running = Running(page=page, **limits)
    running.answer = Recognizer(
        transcribe_files=transcribe_files, predict=lambda waveform, lengths: {}, count_samples=duration_samples,
        max_audio_secs=MAX_SECS, max_row_secs=30, max_rows=4,
    ).answer  # fmt: skip
    yield running
    running.stop()


@pytest.fixture(scope="module")
def launch():
    """Starts a browser with the given switches; all end with the module."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the page is not tried: playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        path = find_browser() or playwright.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip("the page is not tried: no Chromium here; install one, or `playwright install chromium`")
        started = []

        def launch(*switches):
            # Without a sandbox, since tests may run as root; the page is our own.
            args = ["--no-sandbox", "--use-fake-device-for-media-stream", *switches]
            started.append(playwright.chromium.launch(executable_path=path, args=args))
            return started[-1]

        yield launch
        for browser in started:
            browser.close()


@pytest.fixture(scope="module")
def browser(launch, tmp_path_factory):
    """A browser whose microphone says SAID, once."""
    path = tmp_path_factory.mktemp("microphone") / "said.wav"
    path.write_bytes(speak(SAID, 44_100, silence_secs=2.0))
    return launch("--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={path}%noloop")


class Visit:
    """The server's page, and what it complained of."""

    def __init__(self, browser, server, *, host="127.0.0.1", page=None, **options):
        self.page = page or browser.new_page(**options)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"http://{host}:{server.port}/")

    def send(self, *files):
        self.page.set_input_files(
            "#files", [{"name": name, "mimeType": "", "buffer": content} for name, content in files]
        )

    def end(self, *, num_refused=0):
        # Chromium reports each answer that is no success.
        assert len([text for text in self.complaints if "Failed to load resource" in text]) == num_refused
        assert len(self.complaints) == num_refused, self.complaints
        self.page.close()


def ask(server, body, query=""):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", f"/v1/transcribe{query}", body)
    found = connection.getresponse().read().decode()
    connection.close()
    return found


def test_what_is_said_into_the_microphone_is_shown_as_the_api_answers_it(browser, server):
    wanted = json.loads(ask(server, speak(SAID, 44_100)))["text"]
    assert wanted == " ".join(SAID)
    visit = Visit(browser, server)
    page = visit.page
    page.click("#record")
    page.wait_for_selector("#record.on")
    assert page.inner_text("#record") == "Stop" and page.is_visible("#level")
    page.locator("#status", has_text=ALL_SAID).wait_for()
    page.click("#record")
    page.wait_for_selector("article .text span")
    assert RATES[-1] == SAMPLE_RATE
    assert page.inner_text("article .text").split() == wanted.split()
    assert page.inner_text("article h2").startswith("recording ")
    assert 2.0 < float(page.inner_text(".duration").removesuffix(" s")) < 6.0
    assert page.inner_text("#record") == "Record" and not page.is_visible("#level")
    visit.end()


def change_page(page, server, old, new):
    """Lets a browser's page have another text in place of one of the server's page."""
    assert old in server.service.page.decode()
    changed = server.service.page.decode().replace(old, new)
    page.route("**/", lambda route: route.fulfill(body=changed, content_type="text/html; charset=utf-8"))


def test_a_browser_that_records_at_its_own_rate_alone_is_heard_too(browser, server):
    """Firefox connects no microphone to a context of another rate."""
    page = browser.new_page()
    page.add_init_script("""
      const connect = AudioContext.prototype.createMediaStreamSource;
      AudioContext.prototype.createMediaStreamSource = function (stream) {
        if (this.sampleRate === 16000) throw new DOMException("different sample-rate", "NotSupportedError");
        return connect.call(this, stream);
      };
    """)
    visit = Visit(browser, server, page=page)
    page.click("#record")
    page.wait_for_selector("#record.on")
    page.locator("#status", has_text=ALL_SAID).wait_for()
    page.click("#record")
    page.wait_for_selector("article .text span")
    assert RATES[-1] in (44_100, 48_000)
    assert page.inner_text("article .text").split() == SAID
    visit.end()


def test_a_recording_ends_where_the_server_would_refuse_more(browser, server):
    page = browser.new_page()
    change_page(page, server, f'data-max-secs="{MAX_SECS}"', 'data-max-secs="1.5"')
    visit = Visit(browser, server, page=page)
    page.click("#record")
    page.locator("article .done:visible").wait_for()
    assert page.inner_text("#problem") == "The recording was stopped at 1 s: the server takes no more."
    assert page.inner_text(".duration") in ("1.49 s", "1.50 s")
    visit.end()


def test_what_slips_into_the_page_neither_runs_nor_loads(browser, server):
    page = browser.new_page()
    slipped = (
        '<script>window.ran = 1</script><img src="data:,x" onerror="window.ran = 2">'
        '<img src="http://127.0.0.1:9/x.png"><script src="v1/transcribe"></script>'
        '<form action="v1"><b id="f"></b></form>'
    )
    change_page(page, server, "<header>", f"{slipped}<header>")
    visit = Visit(browser, server, page=page)
    page.evaluate("document.getElementById('f').parentNode.requestSubmit()")
    page.evaluate("fetch('http://127.0.0.1:9/').catch(() => {})")
    assert page.evaluate("window.ran") is None
    assert len([text for text in visit.complaints if "Content Security Policy" in text]) >= 6
    assert page.url == f"http://127.0.0.1:{server.port}/"
    page.close()


def test_a_chosen_file_shows_words_with_times_and_confidence_and_is_downloaded(browser, server):
    visit = Visit(browser, server)
    page, wave = visit.page, speak(SAID, silence_secs=0.5)
    visit.send(("it's 中.wav", wave))
    page.wait_for_selector("article .text span")
    assert page.inner_text("article h2") == "it's 中.wav"
    cells = [row.inner_text().split("\t") for row in page.query_selector_all("tbody tr")]
    assert cells[0] == ["low", "0.50", "0.75", "99 %"]
    assert [row[0] for row in cells] == SAID and [row[3] for row in cells[1:]] == ["30 %", "70 %", "30 %"]
    spans = page.query_selector_all(".text span")
    assert [span.get_attribute("class") for span in spans] == ["c0", "c4", "c2", "c4"]
    assert spans[1].get_attribute("title") == "0.90 to 1.15 s, confidence 30 %"
    shades = {span.evaluate("(node) => getComputedStyle(node).backgroundColor") for span in spans}
    assert len(shades) == 3
    assert page.inner_text(".count") == "4" and page.inner_text(".confidence") == "50 %"
    for format in ("txt", "srt", "vtt", "json"):
        with page.expect_download() as download:
            page.click(f"[data-format={format}]")
        assert download.value.suggested_filename == f"it's 中.{format}"
        with open(download.value.path(), encoding="utf-8") as file:
            content = file.read()
        if format == "json":
            assert json.loads(content) == {**json.loads(ask(server, wave)), "audio_filepath": "it's 中.wav"}
        else:
            assert content == ask(server, wave, f"?format={format}")
    spans[1].click()  # plays from there
    page.locator("audio").evaluate("(node) => new Promise((done) => { node.onended = done; })")
    visit.end()


def test_dropped_files_are_done_in_order_and_bad_ones_say_why(browser, server):
    visit = Visit(browser, server)
    page = visit.page
    files = {
        "good.wav": speak(["high"]),
        "notes.txt": b"no audio",
        "empty.wav": b"",
        "talk.webm": b"\x1aE\xdf\xa3" + bytes(99),
        "huge.wav": bytes(1_000_001),
        "long.wav": speak([], 8000, silence_secs=6),
        "also good.wav": speak(["low", "low"]),
    }
    page.evaluate(
        """(files) => {
          const data = new DataTransfer();
          for (const [name, text] of Object.entries(files)) {
            data.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
          }
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        {name: base64.b64encode(content).decode() for name, content in files.items()},
    )
    page.locator("article .text span").nth(2).wait_for()
    assert page.locator("article h2").all_inner_texts() == list(files)
    assert [text.split() for text in page.locator("article .text:visible").all_inner_texts()] == [
        ["high"],
        ["low", "low"],
    ]
    errors = page.locator("article .error").all_inner_texts()
    assert len(errors) == 5 and all("\n" not in error for error in errors)
    for error, part in zip(
        errors,
        ["notes.txt", "empty.wav is empty", "ffmpeg -i talk.webm", "larger than the 1 MB", "long.wav lasts 12 s"],
        strict=True,
    ):
        assert error.startswith("Error: ") and part in error
    assert page.locator("button.again:visible").count() == 0  # the same would be refused again
    visit.end(num_refused=3)


def test_silence_a_busy_server_and_a_second_try(browser, server):
    visit = Visit(browser, server)
    page = visit.page
    visit.send(("silence.wav", speak([])))
    page.wait_for_selector("article .text:visible")
    assert page.inner_text("article .text") == "No speech was recognized."
    server.gate.clear()
    real, server.answer = server.answer, lambda requests: server.gate.wait(20) and real(requests)
    visit.send(("waits.wav", speak(["low"])), ("next.wav", speak(["high"])))
    waits, following = (page.locator("article", has_text=name) for name in ("waits.wav", "next.wav"))
    waits.locator(".message", has_text="Waiting for the transcript").wait_for()
    assert following.locator(".message").inner_text() == "Waiting for the recordings before it"
    for card in (following, waits):
        card.locator(".cancel").click()
        card.locator(".message", has_text="Cancelled").wait_for()
    server.gate.set()
    following.locator(".again").wait_for()
    waits.locator(".again").click()
    waits.locator(".text span").wait_for()
    assert waits.locator(".text").inner_text().strip() == "low"
    visit.end()


def test_a_server_that_is_gone_is_told(browser, server):
    visit = Visit(browser, server)
    visit.page.route("**/v1/transcribe*", lambda route: route.abort())
    visit.send(("a.wav", speak(["low"])))
    visit.page.locator(".error", has_text="the server did not answer").wait_for()
    assert visit.page.is_visible("button.again")
    visit.end(num_refused=1)


def test_a_page_without_a_microphone_says_why(launch, server):
    denied = launch("--deny-permission-prompts", f"--host-resolver-rules=MAP {PUBLIC} 127.0.0.1")
    visit = Visit(denied, server)
    visit.page.click("#record")
    visit.page.locator("#problem", has_text="The browser denies the microphone. Allow it").wait_for()
    assert visit.page.is_enabled("#record")
    visit.end()
    visit = Visit(denied, server, host=PUBLIC)
    visit.page.click("#record")
    assert "only to pages from HTTPS or localhost; " in visit.page.inner_text("#problem")
    assert f"http://{PUBLIC}:{server.port}" in visit.page.inner_text("#problem")
    visit.send(("a.wav", speak(["low"])))  # files work there too
    visit.page.wait_for_selector("article .text span")
    visit.end()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_follows_its_colours(browser, server, scheme):
    visit = Visit(browser, server, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    visit.send((f"{'long name ' * 20}{'x' * 200}.wav", speak(SAID)), ("bad.wav", b"x" * 300))
    visit.page.wait_for_selector("article .error")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    colour = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(247, 248, 250)", "dark": "rgb(20, 23, 29)"}[scheme]
    visit.end(num_refused=1)
