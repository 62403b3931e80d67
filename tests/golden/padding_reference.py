"""What the reference (Hugging Face transformers on PyTorch, CPU) makes of padded rows; `benchmarks.padding` calls this.

    REF/bin/python tests/golden/padding_reference.py --folder=DIR --ways='{"alone": [0, 1], "batch": [0, 16]}'

DIR holds hf/ (a model) and waveforms.npz (normalized); DIR/reference-WAY.npz gets the logits of each row's valid frames
without an attention mask, DIR/reference-WAY+mask.npz those with one. Files that exist are kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import transformers


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--ways", required=True)
    parser.add_argument("--without_mask", type=int, default=1)
    flags = parser.parse_args()
    folder = Path(flags.folder)
    model = transformers.AutoModelForCTC.from_pretrained(folder / "hf").eval()
    with np.load(folder / "waveforms.npz") as file:
        waveforms = [file[name] for name in file.files]
    for way, (width, rows_at_once) in json.loads(flags.ways).items():
        kinds = (False, True) if flags.without_mask else (True,)
        for masked in kinds if way != "alone" else (False,):
            path = folder / f"reference-{way}{'+mask' if masked else ''}.npz"
            if path.is_file():
                continue
            found = []
            for start in range(0, len(waveforms), rows_at_once):
                rows = waveforms[start : start + rows_at_once]
                size = width or max(map(len, rows))
                speech = torch.zeros(len(rows), size)
                mask = torch.zeros(len(rows), size, dtype=torch.long)
                for i, row in enumerate(rows):
                    speech[i, : len(row)] = torch.from_numpy(row)
                    mask[i, : len(row)] = 1
                with torch.no_grad():
                    logits = model(speech, attention_mask=mask if masked else None).logits.numpy()
                frames = model._get_feat_extract_output_lengths(torch.tensor([len(row) for row in rows])).tolist()
                found += [logits[i, :count] for i, count in enumerate(frames)]
            temporary = path.with_suffix(".part.npz")
            np.savez(temporary, *found)
            temporary.replace(path)


if __name__ == "__main__":
    main()
