"""Converts text to waveforms with the eSpeak NG library that `espeakng_loader` contains."""

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
    """Runs eSpeak NG through ctypes with one voice, in a private copy of the library.

        synthesizer = Synthesizer(voice="en-us+f1", seed=0)
        waveform = synthesizer.speak("hello", rate=170, pitch=50, pitch_range=50)
        synthesizer.close()

    The library keeps its state (phases, echo, flutter) in globals, so its output depends on all it said before. A copy
    of the file under another name loads as another library with new globals, so an utterance depends only on what this
    object said before.

    Raises:
        InputError: If the library is missing, cannot be loaded, or does not have the voice.
    """

    _SYNCHRONOUS, _DO_NOT_EXIT, _UTF8 = 2, 0x8000, 1
    _RATE, _PITCH, _RANGE, _WORD_GAP = 1, 3, 4, 7

    def __init__(self, *, voice: str, seed: int):
        try:
            import espeakng_loader
        except ImportError:
            raise InputError(
                "speech synthesis: espeakng-loader is not installed; run `make install`, "
                "`pip install espeakng-loader` or `pip install -e '.[quickstart]'`"
            ) from None
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "libespeak-private.so"
            try:
                shutil.copyfile(espeakng_loader.get_library_path(), copy)
                self._library = ctypes.CDLL(str(copy))
            except OSError as error:
                raise InputError(
                    f"speech synthesis: cannot load eSpeak NG ({error}); reinstall espeakng-loader, or point TMPDIR to "
                    "a folder that may hold executables"
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
        self._callback = signature(self._keep)  # kept alive, because the library holds only a pointer
        library.espeak_SetSynthCallback(self._callback)
        library.espeak_ng_SetRandSeed(seed)
        # The library silently ignores an unknown variant.
        variant = voice.partition("+")[2]
        known = not variant or Path(os.fsdecode(voices), "voices", "!v", variant).is_file()
        if not known or library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(f"speech synthesis: eSpeak NG has no voice {voice}; check its name")

    def _keep(self, samples, num_samples: int, events) -> int:
        if samples and num_samples > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * num_samples))
        return 0  # go on

    def speak(self, text: str, *, rate: int, pitch: int, pitch_range: int, word_gap: int = 0) -> np.ndarray:
        """Synthesizes a text.

        Args:
            text: Text to say.
            rate: Words per minute.
            pitch: Pitch from 0 to 100.
            pitch_range: Range of the pitch from 0 to 100.
            word_gap: Pause between words in units of 10 ms.

        Returns:
            float32 [T] in [-1, 1] at 22,050 Hz, without silence at the ends.
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
            raise RuntimeError(f"eSpeak NG cannot say {text!r} (status {status})")
        return trim_silence(waveform)

    def close(self) -> None:
        """Frees the voice and the phoneme tables; the object cannot be used afterwards."""
        self._library.espeak_Terminate()


def trim_silence(waveform: np.ndarray, *, threshold: float = 0.01) -> np.ndarray:
    """Cuts samples below `threshold` times the peak from both ends of a waveform [T]."""
    loud = np.flatnonzero(np.abs(waveform) >= threshold * np.abs(waveform).max())
    return waveform[loud[0] : loud[-1] + 1]
