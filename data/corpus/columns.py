"""Knows the columns of public speech corpora: which one holds the audio, the transcript, the speaker and the id.

Common Voice: audio, sentence, client_id, path. FLEURS: audio, transcription, id (of the sentence, which several
speakers read). VoxPopuli: audio, normalized_text, raw_text, speaker_id, audio_id. Multilingual LibriSpeech: audio,
transcript, speaker_id, id. People's Speech: audio, text, id. LibriSpeech: audio, text, speaker_id, id, file.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from data.common.errors import InputError

# In the order of preference: VoxPopuli and FLEURS have a written and a normalized form.
TEXT_COLUMNS = (
    "text",
    "sentence",
    "transcription",
    "transcript",
    "normalized_text",
    "raw_text",
    "raw_transcription",
)
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
ID_COLUMNS = ("utterance_id", "id", "audio_id", "segment_id", "key")
AUDIO_COLUMNS = ("audio_filepath", "path", "file_name")  # of manifests; file_name is that of AudioFolder
PATH_COLUMNS = (*AUDIO_COLUMNS, "file")  # of tables with or without the audio
# Keys of a record that say what it is; any other may put utterances into groups.
OWN_FIELDS = frozenset(
    (*AUDIO_COLUMNS, *TEXT_COLUMNS, *SPEAKER_COLUMNS, "offset", "duration", "audio_channel", "utterance_id", "split")
)
_MOST_SHOWN = 12


def choose_text_column(columns: Collection[str], wanted: str, where: str) -> str:
    """Returns the column of the transcripts.

    Args:
        columns: Columns of the corpus.
        wanted: Column to use; "" = the first known one.
        where: Name of the corpus in messages.

    Raises:
        InputError: If there is no such column.
    """
    if wanted in columns or not wanted:
        found = wanted or next((name for name in TEXT_COLUMNS if name in columns), "")
        if found:
            return found
    shown = ", ".join(list(columns)[:_MOST_SHOWN]) or "none"
    what = f"no column {wanted!r}" if wanted else f"no column {', '.join(TEXT_COLUMNS)}"
    raise InputError(f"{where} has {what} with the transcripts: name one with text_column; it has {shown}")


def choose_column(columns: Collection[str], known: Sequence[str]) -> str:
    """Returns the first of the known columns that a corpus has, or ""."""
    return next((name for name in known if name in columns), "")
