"""The benchmark of the error report measures a report that was written."""

from benchmarks.error_report import measure


def test_a_small_set_is_measured_whole(tmp_path):
    found = measure(12, 0, tmp_path)
    assert 5 < found["WER, %"] < 20 and found["report, s"] > 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("<audio") == 12 and "Against update 1,000" in page
    assert found["page, MB"] == (tmp_path / "report.html").stat().st_size / 1e6 > 1
