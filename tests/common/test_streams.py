"""A program goes on, and ends with its own status, whatever becomes of where it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.streams import LastingStream, silence_stderr

ROOT = Path(__file__).resolve().parents[2]
# Prints more than a pipe or a buffer holds, through every way in which a run prints, and leaves a file at its end.
PROGRAM = """
import contextlib, logging, os, sys
from common.streams import outlive_readers
outlive_readers()
logging.basicConfig(level=logging.INFO)
target = open(sys.argv[1], "w")
for number in range(3000):
    print(f"update {number}: " + "x" * 60, flush=number % 7 == 0)
    print("a warning", file=sys.stderr)
    logging.info("a line of the log")
    with contextlib.suppress(OSError):
        os.write(2, b"what a library says\\n")
assert target.fileno() > 2
target.write("done")
target.close()
sys.exit(3)
"""


def start(tmp_path, redirection="", **options):
    command = f'exec "$0" -c "$1" "$2" {redirection}'
    return subprocess.Popen(
        ["bash", "-c", command, sys.executable, PROGRAM, str(tmp_path / "out")], cwd=ROOT, **options
    )


@pytest.mark.parametrize("closed", [["stdout"], ["stderr"], ["stdout", "stderr"]])
def test_a_reader_that_leaves_after_a_line_ends_nothing(tmp_path, closed):
    streams = {name: subprocess.PIPE if name in closed else subprocess.DEVNULL for name in ("stdout", "stderr")}
    process = start(tmp_path, **streams)
    for name in closed:
        pipe = getattr(process, name)
        assert pipe.readline()
        pipe.close()
    assert process.wait(timeout=60) == 3
    assert (tmp_path / "out").read_text() == "done"


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>&1"])
def test_descriptors_that_were_closed_or_lead_to_a_full_disk_end_nothing(tmp_path, redirection):
    process = start(tmp_path, redirection, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 3
    # Nothing of what was printed has landed in a file that got the number of a closed descriptor.
    assert (tmp_path / "out").read_text() == "done"
    assert b"Traceback" not in said
    if redirection == "2>&-":
        assert printed.count(b"\n") == 3000


def test_a_disk_that_has_room_again_is_written_to(tmp_path):
    class Full:
        def __init__(self, stream):
            self.stream, self.is_full = stream, True

        def write(self, text):
            if self.is_full:
                raise OSError(28, "No space left on device")
            return self.stream.write(text)

        def fileno(self):
            return self.stream.fileno()

    with (tmp_path / "log").open("w") as file:
        disk = Full(file)
        stream = LastingStream(disk)
        assert stream.write("lost") == 4
        disk.is_full = False
        stream.write("kept")
        assert stream.fileno() == file.fileno() and os.fstat(file.fileno()).st_size == 0
    assert (tmp_path / "log").read_text() == "kept"


def test_what_is_no_fault_of_the_stream_is_raised(tmp_path):
    with (tmp_path / "log").open("w", encoding="ascii") as file, pytest.raises(UnicodeEncodeError):
        LastingStream(file).write("ü")


def test_standard_error_is_silent_in_a_block_and_whole_after_blocks_of_many_threads(capfd):
    def print_within(number: int) -> None:
        with silence_stderr():
            os.write(2, b"within %d\n" % number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(print_within, range(200)))
    with pytest.raises(ValueError, match="broken"), silence_stderr():
        raise ValueError("broken")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_standard_error_that_is_closed_stays_closed():
    program = "from common.streams import silence_stderr\nwith silence_stderr():\n    print('within')\n"
    program += "import os\nos.write(2, b'x')"
    ended = subprocess.run(
        ["bash", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program], cwd=ROOT, capture_output=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, b"within\n")
