"""docs/tutorial.ipynb: what is kept in it is whole, and it still runs from top to bottom."""

from __future__ import annotations

import json
import re

import nbformat
import pytest

from tests.helpers import notebook


def text_of(cell) -> str:
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


def test_the_kept_outputs_are_those_of_one_execution_and_hold_no_audio_and_no_path():
    kept = nbformat.read(notebook.TUTORIAL, as_version=4)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "display_data", "execute_result"}
    assert [output.name for output in outputs if output.output_type == "stream" and output.name != "stdout"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    text = notebook.TUTORIAL.read_text(encoding="utf-8")
    assert "<audio" not in text and "base64" not in text
    # What a folder of somebody's machine begins with.
    assert re.findall(r"/(?:home|root|work|tmp|Users)/[^\s\"\\]*", text) == []
    (wer,) = re.findall(r"WER (\d+\.\d+) %", "".join(map(text_of, code)))
    assert float(wer) < 10.0, "the kept run has not learned to read"


def test_audio_players_become_a_line():
    player = nbformat.v4.new_output("display_data", data={"text/html": "<audio src='data:audio/wav;base64,AAAA'>"})
    picture = nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})
    cell = nbformat.v4.new_code_cell("", outputs=[player, picture], metadata={"execution": {"started": "now"}})
    cleaned = notebook.without_audio(nbformat.v4.new_notebook(cells=[cell]))
    assert "<audio" not in json.dumps(cleaned)
    assert cleaned.cells[0].outputs[1] == picture
    assert cleaned.cells[0].metadata == {}


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.setenv("EARSHOT_TUTORIAL_FOLDER", str(tmp_path / "tutorial"))
    monkeypatch.setenv("EARSHOT_TUTORIAL_UPDATES", "2")
    monkeypatch.delenv("EARSHOT_TUTORIAL_HANDLE", raising=False)
    executed = notebook.execute(notebook.TUTORIAL)
    lines = (tmp_path / "tutorial/run/metrics.jsonl").read_text().splitlines()
    last = [record for record in map(json.loads, lines) if record["split"] == "test_clean"][-1]
    assert last["step"] == 2
    texts = [text_of(cell) for cell in executed.cells if cell.cell_type == "code"]
    assert any(f"WER {100 * last['wer']:.2f} %   CER {100 * last['cer']:.2f} %   at update 2" in text for text in texts)
    assert any("hidden states (1, " in text and ", 128)" in text for text in texts)
    assert "files, " in texts[-1]
    # The notebook itself compares the reloaded export's text with the evaluation's.
    assert (tmp_path / "tutorial/exported/saved_model.pb").exists()
