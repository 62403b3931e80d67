"""The eSpeak NG synthesizer: text to waveform, from the library that `espeakng_loader` carries."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from data.common.errors import InputError

SAMPLE_RATE = 22050


class Synthesizer:
    """eSpeak NG through ctypes, one voice, in a private copy of the library.

    The library keeps its state (phases, echo, flutter) in globals, and what it says depends on all
    it said before. A copy of the file under another name is loaded as another library, with fresh
    globals: so an utterance depends only on what this object has said.

    Raises:
        InputError: the library is missing, cannot be loaded, or does not have the voice.
    """

    _SYNCHRONOUS, _DO_NOT_EXIT, _UTF8 = 2, 0x8000, 1
    _RATE, _PITCH, _RANGE, _WORD_GAP = 1, 3, 4, 7

    def __init__(self, *, voice: str, seed: int):
        try:
            import espeakng_loader
        except ImportError:
            raise InputError(
                "speech synthesis: the speech synthesizer is missing; run `make install` or "
                "`pip install espeakng-loader`, or `pip install -e '.[quickstart]'`"
            ) from None
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "libespeak-private.so"
            try:
                shutil.copyfile(espeakng_loader.get_library_path(), copy)
                self._library = ctypes.CDLL(str(copy))
            except OSError as error:
                raise InputError(
                    f"speech synthesis: cannot load the speech synthesizer ({error}); reinstall "
                    "espeakng-loader, or point TMPDIR to a folder that may hold executables"
                ) from None
        library = self._library
        library.espeak_Initialize.argtypes = [
            ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int,
        ]  # fmt: skip
        library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
        library.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint,
            ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        voices = os.fsencode(espeakng_loader.get_data_path())
        rate = library.espeak_Initialize(self._SYNCHRONOUS, 0, voices, self._DO_NOT_EXIT)
        if rate != SAMPLE_RATE:
            raise InputError(
                f"speech synthesis: eSpeak NG cannot start from {os.fsdecode(voices)} (answered "
                f"{rate}); reinstall espeakng-loader, under a shorter path if this one is very long"
            )
        self._chunks: list[bytes] = []
        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = signature(self._keep)  # the library has only a pointer: keep it alive
        library.espeak_SetSynthCallback(self._callback)
        library.espeak_ng_SetRandSeed(seed)
        # The library itself takes an unknown variant for none at all, and would say nothing of it.
        variant = voice.partition("+")[2]
        known = not variant or Path(os.fsdecode(voices), "voices", "!v", variant).is_file()
        if not known or library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(f"speech synthesis: eSpeak NG has no voice {voice}; check its name")

    def _keep(self, samples, num_samples: int, events) -> int:
        if samples and num_samples > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * num_samples))
        return 0  # go on

    def speak(self, text: str, *, rate: int, pitch: int, pitch_range: int, word_gap: int = 0) -> np.ndarray:
        """Says `text`. Rate in words a minute, pitch and range 0 to 100, word_gap in 10 ms.

        Returns:
            float32 [T] in [-1, 1] at 22,050 Hz, silence at both ends cut off.
        """
        for parameter, value in (
            (self._RATE, rate), (self._PITCH, pitch), (self._RANGE, pitch_range),
            (self._WORD_GAP, word_gap),
        ):  # fmt: skip
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        encoded = text.lower().encode() + b"\0"
        status = self._library.espeak_Synth(encoded, len(encoded), 0, 0, 0, self._UTF8, None, None)
        waveform = np.frombuffer(b"".join(self._chunks), dtype="<i2").astype(np.float32) / 32768
        if status != 0 or not np.any(waveform):
            raise RuntimeError(f"eSpeak NG did not say {text!r} (status {status})")
        return trim_silence(waveform)

    def close(self) -> None:
        """Frees the voice and the phoneme tables; the object is of no use afterwards."""
        self._library.espeak_Terminate()


def trim_silence(waveform: np.ndarray, *, threshold: float = 0.01) -> np.ndarray:
    """Cuts samples below `threshold` times the peak from both ends of a waveform [T]."""
    loud = np.flatnonzero(np.abs(waveform) >= threshold * np.abs(waveform).max())
    return waveform[loud[0] : loud[-1] + 1]
