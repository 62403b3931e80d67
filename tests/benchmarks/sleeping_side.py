"""A side of a benchmark that never answers, for a test of what asks it; starts without TensorFlow."""

from __future__ import annotations

import time

from benchmarks import protocol


class Sleeper:
    """Builds at once."""

    def run_once(self):
        time.sleep(60)


if __name__ == "__main__":
    protocol.serve(Sleeper, versions=lambda: "{}")
