"""TFRecord shards with an index, written by `data.prepare` and read in any order."""
