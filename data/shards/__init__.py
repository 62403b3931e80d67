"""TFRecord shards with an index: written by `data.prepare`, read at random."""
