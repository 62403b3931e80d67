"""The config that a command would use, as flags; whole commands are in tests/test_command_line.py."""

import json

from configs import base
from engine.modes.config import run

SETS = {"data.eval": base.get_eval_set().to_dict(), "data.more_train": base.get_train_set().to_dict()}


def printed(config, capsys, *, workdir="runs/none"):
    status = run(
        config=config.to_dict(),
        base=base.get_config().to_dict(),
        sets=SETS,
        source="configs/x.py",
        workdir=str(workdir),
    )
    assert status == 0
    return capsys.readouterr().out.splitlines()


def above(lines, flag):
    return lines[lines.index(flag) - 1]


def test_every_field_is_there_and_those_that_differ_have_the_value_of_base_above(capsys):
    config = base.get_config()
    config.train.learning_rate = 1e-3
    lines = printed(config, capsys)
    assert sum(line.startswith("--config.") for line in lines) == len(
        [name for name in flat_names(config.to_dict()) if name]
    )
    assert above(lines, "--config.train.learning_rate=0.001") == "# configs/base.py: 3e-05"
    assert sum(line.startswith("# configs/base.py: ") for line in lines) == 1


def flat_names(fields, prefix=""):
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from flat_names(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_what_the_data_decide_says_so_and_a_run_has_found_it(capsys, tmp_path):
    config = base.get_config()
    config.data.text_normalization = config.data.vocab = "auto"
    config.train.num_updates, config.train.num_epochs = 0, 3.0
    lines = printed(config, capsys)
    assert above(lines, "--config.data.text_normalization=auto") == "# resolves to what the training texts suggest"
    assert above(lines, "--config.data.vocab=auto") == "# resolves to the characters of the training texts"
    assert above(lines, "--config.train.num_updates=0").startswith("# resolves to 3 epochs, counted when")
    assert above(lines, "--config.model.preset=auto") == "# resolves to the architecture of hf://facebook/wav2vec2-base"
    recorded = config.to_dict()
    recorded["data"]["text_normalization"] = "unicode"
    recorded["train"]["num_updates"] = 1234
    (tmp_path / "config.json").write_text(json.dumps(recorded))
    lines = printed(config, capsys, workdir=tmp_path)
    assert (
        above(lines, "--config.data.text_normalization=auto")
        == f"# resolves to unicode, as the run in {tmp_path} has found"
    )
    assert above(lines, "--config.train.num_updates=0") == f"# resolves to 1234, as the run in {tmp_path} has counted"
    assert above(lines, "--config.data.vocab=auto") == f"# resolves to {tmp_path}/vocab.json"
    config.data.vocab = "words"
    assert (
        above(printed(config, capsys), "--config.data.vocab=words") == "# resolves to the words of the training texts"
    )


def test_a_set_whose_name_is_no_identifier_is_written_as_the_parser_takes_it(capsys):
    config = base.get_config()
    config.data.eval["dev-other"] = base.get_eval_set(input="x", speakers=("1", "2"))
    lines = printed(config, capsys)
    assert "--config.data.eval['dev-other'].input=x" in lines
    assert above(lines, "--config.data.eval['dev-other'].speakers=('1', '2')") == "# configs/base.py: ()"


def test_a_further_training_corpus_is_written_with_the_defaults_of_its_own_kind(capsys):
    config = base.get_config()
    config.data.more_train["calls"] = base.get_train_set(input="x", weight=2.0)
    lines = printed(config, capsys)
    assert above(lines, "--config.data.more_train.calls.weight=2.0") == "# configs/base.py: 1.0"
    assert "--config.data.more_train.calls.format=tfrecord" in lines


def test_a_group_of_a_set_is_compared_with_its_defaults_and_written_as_the_parser_takes_it(capsys):
    config = base.get_config()
    config.data.eval["dev-other"] = base.get_eval_set(augment=base.get_augment(noise_prob=1.0))
    lines = printed(config, capsys)
    assert above(lines, "--config.data.eval['dev-other'].augment.noise_prob=1.0") == "# configs/base.py: 0.0"
    assert sum(line.startswith("# configs/base.py: ") for line in lines) == 1
