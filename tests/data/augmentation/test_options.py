"""Options out of range are one line that names the field; the config's fields are those of the options."""

from __future__ import annotations

import dataclasses

import pytest

from configs.base import get_augment, get_config, get_eval_set
from data.augmentation.options import AugmentOptions, augment_groups, check_augment
from data.common.errors import InputError


def test_the_config_has_the_options_with_their_defaults():
    fields = get_augment().to_dict()
    options = AugmentOptions(**fields)
    assert fields.keys() == {field.name for field in dataclasses.fields(AugmentOptions)}
    assert options == AugmentOptions() and not options.is_on and options.describe() == {}
    assert get_config().data.augment.to_dict() == get_eval_set().augment.to_dict() == fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"noise_prob": 1.5}, "data.augment.noise_prob=1.5: wanted a number, 0 to 1"),
        ({"room_prob": -0.1}, "data.augment.room_prob=-0.1: wanted a number, 0 to 1"),
        ({"gain_prob": float("nan")}, "data.augment.gain_prob=nan: wanted a number, 0 to 1"),
        ({"clip_prob": "often"}, "data.augment.clip_prob='often': wanted a number, 0 to 1"),
        ({"noise_snr_db": (20.0, 5.0)}, "data.augment.noise_snr_db=(20.0, 5.0): the lower end comes first: (5, 20)"),
        ({"noise_snr_db": (5.0,)}, "data.augment.noise_snr_db=(5.0,): wanted two numbers, the lower and the upper end"),
        ({"noise_snr_db": 5.0}, "data.augment.noise_snr_db=5.0: wanted two numbers"),
        ({"noise_snr_db": ("a", "b")}, "data.augment.noise_snr_db=('a', 'b'): wanted two numbers"),
        ({"room_decay_secs": (0.0, 0.5)}, "data.augment.room_decay_secs=(0.0, 0.5): wanted numbers from 0.02 to 10"),
        ({"silence_secs": (0.0, float("inf"))}, "data.augment.silence_secs=(0.0, inf): wanted two numbers"),
        ({"low_pass_hz": (3000.0, 9000.0)}, "data.augment.low_pass_hz=(3000.0, 9000.0): wanted numbers from 100 to"),
        ({"babble_talkers": (2.5, 4.0)}, "data.augment.babble_talkers=(2.5, 4.0): wanted whole numbers"),
        ({"telephone_codecs": ("mu-law",)}, "data.augment.telephone_codecs=mu-law: no such codec; did you mean mulaw?"),
        ({"telephone_codecs": ()}, "data.augment.telephone_codecs is empty: wanted one or more of none, mulaw, gsm"),
    ],
)
def test_values_out_of_range_are_one_line(fields, message):
    with pytest.raises(InputError) as error:
        check_augment(fields, "data.augment")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_source_that_does_not_exist_is_named_with_what_lies_near(tmp_path):
    (tmp_path / "musan").mkdir()
    with pytest.raises(InputError, match=r"^data.eval.x.augment.noise_source=\S+/muson: no such .*; did you mean"):
        check_augment({"noise_source": str(tmp_path / "muson")}, "data.eval.x.augment")
    check_augment({"noise_source": "gs://bucket/musan"}, "data.augment")  # asked when it is opened
    check_augment({"noise_source": str(tmp_path / "muson")}, "data.augment", is_read=False)
    with pytest.raises(InputError, match="noise_prob"):
        check_augment({"noise_prob": 2.0}, "data.augment", is_read=False)


def test_the_groups_of_a_config_are_those_of_training_and_of_each_set():
    config = get_config()
    assert [group for group, _ in augment_groups(config.to_dict())] == ["data.augment", "data.eval.dev_clean.augment"]
    del config.data.augment
    assert [group for group, _ in augment_groups(config.to_dict())] == ["data.eval.dev_clean.augment"]


def test_only_what_is_on_describes_a_set_and_the_place_of_its_noise_does_not():
    options = AugmentOptions(noise_prob=1.0, noise_source="/here", noise_snr_db=(10.0, 10.0), gain_db=(1.0, 2.0))
    assert options.describe() == {"noise_prob": 1.0, "noise_snr_db": [10.0, 10.0]}
