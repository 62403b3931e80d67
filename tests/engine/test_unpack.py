"""From a config to the parts of a run."""

from __future__ import annotations

import pytest
from ml_collections import ConfigDict

from engine import unpack
from tests.experiment_toys import make_config, make_parts


def test_load_run_finds_the_config_of_a_checkpoint_inside_a_workdir(tmp_path):
    (tmp_path / "run/best").mkdir(parents=True)
    (tmp_path / "run/config.json").write_text('{"seed": 7}')
    for path in ("run", "run/best", "run/best/ckpt-3"):
        config, workdir = unpack.load_run(str(tmp_path / path))
        assert (config.seed, workdir) == (7, str(tmp_path / "run"))
    with pytest.raises(ValueError, match="no config.json"):
        unpack.load_run(str(tmp_path / "elsewhere/x/y"))
    with pytest.raises(ValueError, match="--checkpoint is empty"):
        unpack.load_run("")


def test_a_run_from_before_there_were_sources_is_native(tmp_path):
    config = make_config(tmp_path)
    config.model.source, config.model.hub_handle = "hub", "X"
    seen = []
    parts = make_parts(build_model=lambda **fields: seen.append((fields["source"], fields["hub_handle"])))
    unpack.build_model(config, parts, num_tokens=6)
    old = ConfigDict(config.to_dict())
    del old.model["source"], old.model["hub_handle"]
    unpack.build_model(old, parts, num_tokens=6)
    assert seen == [("hub", "X"), ("native", "")]
