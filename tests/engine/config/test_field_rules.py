"""Values of fields that are refused before TensorFlow is imported."""

from __future__ import annotations

import re

import pytest

from configs.base import get_config, get_serve
from engine.config import field_rules

CHOICES = {
    "data.train.format": ("jsonl", "csv"),
    "data.more_train.*.format": ("jsonl", "csv"),
    "data.eval.*.format": ("jsonl", "csv", "tfrecord"),
}


def changed(**fields):
    config = get_config()
    config.data.train.format = "jsonl"
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config.to_dict()


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("model__source", "hubb", "model.source='hubb': wanted one of native, hub"),
        ("model__fused_ops", "of", "model.fused_ops='of': wanted one of auto, on, off"),
        ("runtime__ctc_backend", "sparse", "runtime.ctc_backend='sparse': wanted one of auto, scan, host, xla, blocks"),
        ("runtime__jit_compile", "yes", "runtime.jit_compile='yes': wanted one of auto, on, off"),
        ("model__hidden_dropout", 1.0, "model.hidden_dropout=1.0: wanted 0 to less than 1"),
        ("model__layer_drop", -0.1, "model.layer_drop=-0.1: wanted 0 to less than 1"),
        ("model__mask_time_prob", 1.5, "model.mask_time_prob=1.5: wanted 0 to 1"),
        ("model__mask_time_min_spans", -1, "model.mask_time_min_spans=-1: wanted 0 or more"),
        ("train__cr_ctc_scale", -0.1, "train.cr_ctc_scale=-0.1: wanted 0 or more"),
        ("train__cr_ctc_mask_factor", 0.0, "train.cr_ctc_mask_factor=0.0: wanted a number above 0"),
        ("train__intermediate_ctc_layers", (6, 3), "train.intermediate_ctc_layers=(6, 3): wanted rising numbers"),
        ("train__intermediate_ctc_layers", (0,), "train.intermediate_ctc_layers=(0,): wanted rising numbers of layers"),
        ("train__intermediate_ctc_layers", (1.5,), "train.intermediate_ctc_layers=(1.5,): wanted rising numbers"),
        ("train__intermediate_ctc_weight", 1.0, "train.intermediate_ctc_weight=1.0: wanted 0 to less than 1"),
        ("model__mask_feature_length", 0, "model.mask_feature_length=0: wanted 1 or more"),
        ("data__on_rate_mismatch", "resampel", "data.on_rate_mismatch='resampel': wanted one of resample, refuse"),
        ("data__train__format", "jsnol", "data.train.format='jsnol': no such value; did you mean jsonl?"),
        ("data__eval__dev_clean__format", "cvs", "data.eval.dev_clean.format='cvs': no such value; did you mean csv?"),
        ("data__eval__dev_clean__concat_max_utterances", 0, "data.eval.dev_clean.concat_max_utterances=0: wanted 1"),
        ("data__num_buckets", 0, "data.num_buckets=0: wanted 1 or more"),
        ("data__bucket_boundaries_samples", (5, 5), "data.bucket_boundaries_samples=(5, 5): wanted rising numbers"),
        ("data__bucket_boundaries_samples", (0,), "data.bucket_boundaries_samples=(0,): wanted rising numbers"),
        ("data__min_duration_secs", -1.0, "data.min_duration_secs=-1.0: wanted 0 or more"),
        ("data__max_duration_secs", -1.0, "data.max_duration_secs=-1.0: wanted 0 or more; 0 = no limit"),
        ("data__max_duration_secs", 0.05, "data.max_duration_secs=0.05 is less than data.min_duration_secs=0.1"),
        ("data__speed_factors", (), "data.speed_factors=(): wanted one or more numbers above 0"),
        ("data__speed_factors", (1.0, 0.0), "data.speed_factors=(1.0, 0.0): wanted one or more numbers above 0"),
        ("data__max_batch_secs", -1.0, "data.max_batch_secs=-1.0: wanted 0 or more"),
        ("data__row_multiple", 0, "data.row_multiple=0: wanted 1 or more"),
        ("data__num_parallel_calls", -1, "data.num_parallel_calls=-1: wanted 0 or more; 0 = as many as"),
        ("data__prefetch_batches", -1, "data.prefetch_batches=-1: wanted 0 or more; 0 = those of two"),
        ("decode__beam_size", 0, "decode.beam_size=0: wanted 1 or more"),
        ("decode__beam_threshold", 0.0, "decode.beam_threshold=0.0: wanted a number above 0"),
        ("decode__lm_weight", -1.0, "decode.lm_weight=-1.0: wanted a number of 0 or more"),
        ("decode__word_score", float("inf"), "decode.word_score=inf: wanted a finite number"),
        ("eval__best_metric", "per", "eval.best_metric='per': wanted one of wer, cer, auto"),
        ("data__train__weight", 0.0, "data.train.weight=0.0: wanted a number above 0"),
        ("data__more_train", {"x": {"weight": -1.0}}, "data.more_train.x.weight=-1.0: wanted a number above 0"),
        ("data__more_train", {"x": {"format": "jsnol"}}, "data.more_train.x.format='jsnol': no such value"),
        ("data__sampling_alpha", 1.5, "data.sampling_alpha=1.5: wanted 0 to 1"),
        ("data__train__held_out_ratio", 0.6, "data.train.held_out_ratio=0.6: wanted 0 to 0.5; 0 = none"),
        ("data__eval__dev_clean__held_out_ratio", -0.1, "data.eval.dev_clean.held_out_ratio=-0.1: wanted 0 to 0.5"),
        ("tune_lm__lm_weights", (1.0, -1.0), "tune_lm.lm_weights=(1.0, -1.0): wanted one or more numbers of 0 or more"),
        ("tune_lm__word_scores", (), "tune_lm.word_scores=(): wanted one or more finite numbers"),
        ("tune_lm__num_refinements", -1, "tune_lm.num_refinements=-1: wanted 0 or more"),
        ("tune_lm__max_utterances", -1, "tune_lm.max_utterances=-1: wanted 0 or more; 0 = all"),
        ("pseudo_label__min_confidence", 1.5, "pseudo_label.min_confidence=1.5: wanted 0 to 1"),
        ("pseudo_label__max_chars_per_sec", -1.0, "pseudo_label.max_chars_per_sec=-1.0: wanted 0 or more; 0 = no b"),
        ("pseudo_label__max_chars_per_sec", 1.0, "pseudo_label.max_chars_per_sec=1 is less than pseudo_label.min"),
        ("pseudo_label__second_speed", 3.0, "pseudo_label.second_speed=3.0: wanted 0.5 to 2; 1 = no second"),
        ("segment__min_secs", 20.0, "segment.max_secs=15 is less than segment.min_secs=20: no utterance is between"),
        ("pseudo_label__max_disagreement", -0.1, "pseudo_label.max_disagreement=-0.1: wanted 0 or more"),
        ("pseudo_label__batch_size", 0, "pseudo_label.batch_size=0: wanted 1 or more"),
        ("verify_resume__num_updates", -1, "verify_resume.num_updates=-1: wanted 0 or more"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_field_value_and_what_was_wanted(field, value, line):
    field_rules.check_values(changed(), choices=CHOICES)
    with pytest.raises(ValueError) as raised:
        field_rules.check_values(changed(**{field: value}), choices=CHOICES)
    assert str(raised.value).startswith(line)


def test_a_saved_model_with_random_numbers_of_its_own_is_never_deterministic():
    fields = changed(runtime__deterministic=True)
    field_rules.check_values(fields, choices=CHOICES)
    fields["model"]["source"] = "hub"
    with pytest.raises(ValueError, match="runtime.deterministic=True: the SavedModel of model.source=hub"):
        field_rules.check_values(fields, choices=CHOICES)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", -1),
        ("port", 65_536),
        ("name", ""),
        ("name", "a/b"),
        ("batch_size", 0),
        ("max_body_mb", 0.0),
        ("max_body_mb", float("inf")),
        ("max_json_mb", float("nan")),
        ("host", ""),
        ("cors_origins", "app.example"),
        ("cors_origins", "https://app.example/"),
        ("cors_origins", "https://a.example, https://b.example"),
        ("cors_origins", "https://a.example,*"),
    ],
)
def test_options_of_the_server_are_checked_alike(field, value):
    options = get_serve()
    field_rules.check_values(options.to_dict(), prefix="serve.")
    options[field] = value
    with pytest.raises(ValueError, match=rf"^serve.{field}={re.escape(repr(value))}: wanted "):
        field_rules.check_values(options.to_dict(), prefix="serve.")


@pytest.mark.parametrize("value", ["", "*", "https://a.example,http://localhost:3000,http://[::1]:80"])
def test_origins_as_browsers_send_them_are_taken(value):
    field_rules.check_values({**get_serve().to_dict(), "cors_origins": value}, prefix="serve.")


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("data.num_buckets", "many", "a whole number, 1 or more"),
        ("data.num_buckets", 1.5, "a whole number, 1 or more"),
        ("data.max_duration_secs", float("inf"), "a number, 0 or more; 0 = no limit"),
        ("data.speed_factors", ("fast",), "one or more numbers above 0"),
        ("train.num_updates", 0, "1 or more"),
        ("checkpoint.background", "yes", "one of True, False"),
        ("serve.name", 5, "a part of a URL: no slash, colon or space"),
    ],
)
def test_a_value_of_another_type_is_one_line(field, value, wanted):
    group, name = field.split(".")
    with pytest.raises(ValueError, match=f"^{re.escape(f'{field}={value!r}: wanted {wanted}')}$"):
        field_rules.check_values({group: {name: value}})


def test_a_search_may_keep_everything():
    field_rules.check_values({"decode": {"beam_threshold": float("inf")}})
