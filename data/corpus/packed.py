"""Lists corpora whose recordings lie inside other files: Parquet, Arrow, WebDataset tars and Lhotse Shar.

parquet    files of the `datasets` library, or hf://datasets/OWNER/NAME
arrow      folders of `save_to_disk`, Arrow and Feather files
webdataset tars of samples KEY.flac, KEY.txt or KEY.json
shar       folders of Lhotse Shar, cuts.000000.jsonl.gz beside recording.000000.tar
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from data.corpus.data_files import find_data_files
from data.corpus.faults import Report
from data.corpus.records import Record
from data.corpus.shar import list_cuts
from data.corpus.tables import list_table_rows
from data.corpus.web_dataset import list_samples

_SUFFIXES = {
    "parquet": (".parquet",),
    "arrow": (".arrow", ".feather"),
    "webdataset": (".tar",),
    "shar": (".jsonl.gz", ".jsonl"),
}
PACKED_FORMATS = tuple(_SUFFIXES)


def list_packed(
    *, format: str, input: str | os.PathLike[str], split: str, text_column: str, report: Report
) -> tuple[Iterable[Record], str]:
    """Lists a corpus in one of `PACKED_FORMATS`; the `audio_filepath` of a record is an address.

    Args:
        format: Format of the corpus.
        input: File, folder or pattern of several files.
        split: Split that names of files and folders say; "" = all.
        text_column: Column of the transcripts; "" = a known one. Shar has none.
        report: Called with each fault of a row, which is left out when it returns.

    Returns:
        The records, and the split that is still to be selected among them.

    Raises:
        InputError: If the corpus cannot be read.
    """
    files, left = find_data_files(input, split, _SUFFIXES[format])
    if format == "webdataset":
        return list_samples(files, report, text_column=text_column), left
    if format == "shar":
        return list_cuts(files, report), left
    return list_table_rows(files, report, text_column=text_column), left
