"""Configs and flags for their fields: right ones are read as meant, wrong ones are a line with the nearest right."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import base
from configs.base import get_config, get_eval_set, get_train_set
from engine.config.config_file import ConfigParser, load_config
from engine.config.field_flags import FlagError

CONFIG = "from configs import base\n\n\ndef get_config():\n    config = base.get_small_config()\n{}    return config\n"


def prepare(path, *words):
    parser = ConfigParser(template=get_config(), new_eval_set=get_eval_set, new_train_set=get_train_set)
    given = parser.prepare(["run.py", f"--config={path}", *words])
    return parser.parse(str(path)), given[2:]


@pytest.fixture
def config_path(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG.format('    config.data.eval["old"] = base.get_eval_set(input="a")\n'))
    return path


@pytest.mark.parametrize(
    ("content", "argument", "line"),
    [
        ("x = (\n", "", "is not valid Python: '(' was never closed (line 1)"),
        ("\0", "", "source code string cannot contain null bytes"),
        ("x = 1\n", "", "has no function get_config(), so it is no config"),
        ("def get_confg():\n    pass\n", "", "has no function get_config(); did you mean get_confg?"),
        ("def get_config():\n    return 3\n", "", "get_config() returns int, not a ConfigDict; start from"),
        ("def get_config():\n    pass\n", "", "get_config() returns NoneType, not a ConfigDict"),
        ("import no_such_module\n", "", "ModuleNotFoundError: No module named 'no_such_module' (line 1)"),
        ("def get_config():\n\n    1 / 0\n", "", "ZeroDivisionError: division by zero (line 3)"),
        (CONFIG.format(""), ":corpus", "this config takes nothing after a colon; write --config="),
        ("def get_config(corpus):\n    pass\n", "", "this config wants its corpus: --config="),
        (CONFIG.format("    config.train.num_updats = 5\n"), "", "sets train.num_updats, which is no field; did "
         "you mean num_updates"),
        (CONFIG.format("    del config.decode.method\n"), "", "lacks the field decode.method; start from"),
        (CONFIG.format("    config.data.eval['x'] = 'y'\n"), "", "data.eval.x must be one of configs.base.get_eval_"),
        (CONFIG.format("    config.train.num_updates = 'many'\n"), "", "TypeError: "),
        (CONFIG.format("    config.model.init = None\n"), "", "sets model.init to None instead of a value such as ''"),
        (CONFIG.format("    config.data.eval['x'] = base.get_eval_set(speakers=None)\n"), "", "sets data.eval.x.speak"
         "ers to None instead of a value such as ()"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_used_is_a_line_with_its_place(tmp_path, content, argument, line):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(FlagError) as raised:
        prepare(f"{path}{argument}")
    assert str(raised.value).startswith(f"--config={path}")
    assert line in str(raised.value)


@pytest.mark.parametrize("end", ["config.lock()", "FrozenConfigDict(config)"])
def test_flags_add_a_set_to_a_config_that_is_locked_or_frozen(config_path, end):
    content = config_path.read_text().replace("return config\n", f"return {end}\n")
    config_path.write_text(f"from ml_collections import FrozenConfigDict\n{content}")
    config, _ = prepare(config_path, "--config.data.eval.new.input=b")
    assert sorted(config.data.eval) == ["new", "old"] and config.is_locked


def test_a_config_that_is_not_there_names_what_lies_near(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/debug.py").touch()
    monkeypatch.chdir(tmp_path)
    for argument, line in (
        ("configs/debgu.py", "--config=configs/debgu.py: no such file; did you mean configs/debug.py?"),
        ("debug", "--config=debug: no such file; did you mean configs/debug.py?"),
        ("configs", "--config=configs: is a folder; it has configs/debug.py"),
        ("", "--config=: is empty; name a config, for example --config=configs/base.py"),
    ):
        with pytest.raises(FlagError) as raised:
            load_config(argument)
        assert str(raised.value) == line


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("train.lr=1", "config.train has no field 'lr'; did you mean --config.train.learning_rate?"),
        ("trian.num_updates=1", "config has no field 'trian'; did you mean --config.train?"),
        ("train.num_updats=1", "config.train has no field 'num_updats'; did you mean --config.train.num_updates"),
        ("model.num_updates=1", "config.model has no field 'num_updates'; did you mean --config.train.num_updates or "
         "--config.verify_resume.num_updates?"),
        ("model.xyzzy=1", "config.model has no field 'xyzzy'; it has activation_dropout, "),
        ("model.architecture.x=1", "config.model.architecture has no field 'x'; it has none"),
        ("seed.x=1", "config.seed is a single value without fields; write --config.seed=VALUE"),
        ("data.eval.new.inptu=x", "config.data.eval has no field 'new'; a new set is made by its fields, and 'inptu' "
         "is none: --config.data.eval.new.input=PATH"),
        ("data.eval.new=x", "a new set is made by setting its fields: --config.data.eval.new.input=PATH"),
        ("data.eval.my-set.input=x", "letters, digits and underscores alone: --config.data.eval.my_set.input=PATH"),
        ("data.eval.old.inptu=x", "config.data.eval.old has no field 'inptu'; did you mean --config.data.eval.old.in"),
        ("train=1", "is a group of fields; set them one by one: --config.train.beta_1, "),
        ("data.eval=x", "is a group of fields; set them one by one: --config.data.eval.old"),
        ("train.num_updates=abc", "wanted a whole number, such as 1600"),
        ("train.num_updates=1.5", "wanted a whole number, such as 1600"),
        ("train.num_updates=", "wanted a whole number, such as 1600"),
        ("train.num_updates=None", "wanted a whole number, such as 1600"),
        ("train.learning_rate=abc", "wanted a number, such as 0.0025"),
        ("train.learning_rate=nan", "wanted a number, such as 0.0025"),
        ("data.allow_train_eval_overlap=maybe", "wanted True or False"),
        ("data.speed_factors=a.b", "wanted numbers, such as 0.9,1.0,1.1"),
        ("data.speed_factors=(0.9,'x')", "wanted numbers, such as 0.9,1.0,1.1"),
        ("data.speed_factors=(0.9,", "wanted numbers, such as 0.9,1.0,1.1"),
        ("data.speed_factors=True", "wanted numbers, such as 0.9,1.0,1.1"),
        ("data.bucket_boundaries_samples=1.5", "wanted whole numbers, such as 160000,246000"),
        ("seed", "has no value; write --config.seed=VALUE"),
    ],
)  # fmt: skip
def test_a_wrong_field_or_value_is_a_line_with_the_nearest_right_ones(config_path, flag, line):
    with pytest.raises(FlagError) as raised:
        prepare(config_path, f"--config.{flag}")
    assert str(raised.value).startswith(f"--config.{flag.partition('=')[0]}")
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("flag", ["data.eval.dev-clean.input", "data.eval['dev-clean'].input"])
def test_a_set_of_the_config_may_have_a_hyphen(tmp_path, flag):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG.format('    config.data.eval["dev-clean"] = base.get_eval_set()\n'))
    config, given = prepare(path, f"--config.{flag}=x")
    assert list(config.data.eval) == ["dev-clean"]
    assert given == ["--config.data.eval['dev-clean'].input=x"]  # as ml_collections understands it


def test_fields_need_a_config_that_stands_before_them(config_path):
    parser = ConfigParser(template=get_config(), new_eval_set=get_eval_set, new_train_set=get_train_set)
    with pytest.raises(FlagError, match="^--config.seed: changes a field of a config, and --config is missing: for"):
        parser.prepare(["run.py", "--config.seed=1"])
    with pytest.raises(FlagError, match="^--config.seed=1: stands before the config that it changes; put --config"):
        parser.prepare(["run.py", "--config.seed=1", f"--config={config_path}"])


def test_setting_fields_of_a_new_set_makes_it_and_leaves_the_others(config_path):
    config, given = prepare(config_path, "--config.data.eval.mine.format=jsonl", "--config.data.eval.mine.input", "x")
    assert sorted(config.data.eval) == ["mine", "old"]
    # The values are absl's to set; what was not given is the default of a set.
    assert config.data.eval.mine.to_dict() == get_eval_set().to_dict()
    assert given == ["--config.data.eval.mine.format=jsonl", "--config.data.eval.mine.input", "x"]


def test_a_field_in_a_group_of_a_new_set_makes_it_too(config_path):
    config, given = prepare(
        config_path,
        "--config.data.eval.mine.augment.noise_snr_db=10,10",
        "--config.data.eval.mine.augment.noise_prob=1",
    )
    assert config.data.eval.mine.to_dict() == get_eval_set().to_dict()
    assert given[0] == "--config.data.eval.mine.augment.noise_snr_db=(10.0, 10.0)"
    with pytest.raises(FlagError, match="a new set is made by its fields, and 'augment.nose_prob' is none"):
        prepare(config_path, "--config.data.eval.mine.augment.nose_prob=1")


def test_a_set_with_a_hyphen_has_groups_too(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG.format('    config.data.eval["dev-clean"] = base.get_eval_set()\n'))
    _, given = prepare(path, "--config.data.eval.dev-clean.augment.noise_prob=1")
    assert given == ["--config.data.eval['dev-clean'].augment.noise_prob=1"]


@pytest.mark.parametrize("words", [["--config.data.eval={}"], ["--config.data.eval", "{}"]])
def test_own_sets_take_the_place_of_the_configs(config_path, words):
    config, given = prepare(config_path, *words, "--config.data.eval.mine.input=x")
    assert list(config.data.eval) == ["mine"]
    assert given == ["--config.data.eval.mine.input=x"]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["speed_factors=0.9"], "speed_factors=(0.9,)"),
        (["speed_factors=0.9,1,1.1"], "speed_factors=(0.9, 1.0, 1.1)"),
        (["speed_factors=(0.9, 1.1)"], "speed_factors=(0.9, 1.1)"),
        (["speed_factors=0.9", "speed_factors=1.1"], "speed_factors=(0.9, 1.1)"),
        (["bucket_boundaries_samples=16000,32000"], "bucket_boundaries_samples=(16000, 32000)"),
        (["train.speakers=1001"], "train.speakers=('1001',)"),
        (["train.speakers=0012,1e3,anna"], "train.speakers=('0012', '1e3', 'anna')"),
        (["train.speakers=('a,b', 'c')"], "train.speakers=('a,b', 'c')"),
        (["train.speakers=()"], "train.speakers=()"),
        (["train.speakers="], "train.speakers=()"),
    ],
)
def test_tuples_may_be_written_with_commas(config_path, words, meant):
    _, given = prepare(config_path, *(f"--config.data.{word}" for word in words))
    assert given == [f"--config.data.{meant}"]


def test_no_built_in_config_has_a_set_that_a_flag_cannot_name():
    for name in ("base", "debug", "digits", "hub_tutorial", "librispeech_sample", "overfit", "quickstart"):
        path = Path(base.__file__).with_name(f"{name}.py")
        config = load_config(str(path))
        assert all(set_name.isidentifier() for set_name in config.data.eval)
        assert config.eval.best_metric_set in config.data.eval or not config.data.eval
        prepare(path)


def test_flags_add_training_corpora_as_they_add_evaluation_sets(config_path):
    config, given = prepare(
        config_path,
        "--config.data.more_train.calls.input=b.jsonl",
        "--config.data.more_train.calls.format=jsonl",
        "--config.data.more_train.calls.speakers=1,2",
        "--config.data.more_train.calls.weight=0.5",
        "--config.data.sampling_alpha=0.3",
    )
    assert config.data.more_train.to_dict() == {"calls": get_train_set().to_dict()}  # absl sets the values afterwards
    assert "--config.data.more_train.calls.speakers=('1', '2')" in given
    assert prepare(config_path)[0].data.more_train.to_dict() == {}


def test_the_training_corpora_of_a_config_can_be_dropped_by_a_flag(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG.format('    config.data.more_train["old"] = base.get_train_set(input="a")\n'))
    assert list(prepare(path)[0].data.more_train) == ["old"]
    config, given = prepare(path, "--config.data.more_train={}", "--config.data.more_train.new.input=b")
    assert list(config.data.more_train) == ["new"] and given == ["--config.data.more_train.new.input=b"]


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--config.data.more_train.a-b.input=x", "data.more_train has no field 'a-b'; a set's name has letters"),
        ("--config.data.more_train.calls.wieght=2", "a new set is made by its fields, and 'wieght' is none"),
        ("--config.data.more_train.calls.concat_gap_secs=2", "and 'concat_gap_secs' is none"),
        ("--config.data.more_train=x", "is a group of fields; set them one by one: --config.data.more_train.NAME"),
    ],
)
def test_a_wrong_flag_for_a_training_corpus_is_a_line(config_path, flag, line):
    with pytest.raises(FlagError) as raised:
        prepare(config_path, flag)
    assert line in str(raised.value)


def test_a_config_whose_training_set_was_made_before_there_were_weights_still_runs(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG.format("    del config.data.train.weight\n"))
    assert prepare(path)[0].data.train.weight == 1.0
    path.write_text(CONFIG.format('    config.data.more_train["x"] = 3\n'))
    with pytest.raises(FlagError, match=r"data\.more_train\.x must be one of configs\.base\.get_train_set"):
        prepare(path)


def test_sets_of_a_config_that_were_made_before_a_field_get_what_it_was(tmp_path):
    path = tmp_path / "mine.py"
    lines = (
        'config.data.eval["x"] = base.get_eval_set()',
        "del config.data.train.text_column, config.data.eval.x.text_column",
    )
    path.write_text(CONFIG.format("".join(f"    {line}\n" for line in lines)))
    data = prepare(path)[0].data
    assert (data.train.text_column, data.eval.x.text_column) == ("", "")
