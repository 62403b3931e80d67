"""Fine-tuning wav2vec 2.0 BASE on the 100 hours of LibriSpeech train-clean-100, the published recipe.

    python run.py --config=configs/base.py --workdir=runs/base

needs the corpus as shards under datasets/librispeech; without it the run ends with status 2 and the command that makes
it. The pretrained weights come from the Hugging Face Hub at the first start, 380 MB, and are kept in a cache; where
there is no network, give a folder of python -m models.convert as model.init. With the published weights the recipe
reaches 6.1 % WER on test-clean without a language model (Baevski et al. 2020, https://arxiv.org/abs/2006.11477,
table 9); no weights can be had where this project is built, so that figure is theirs, not measured here.

Every field stands here once, with its meaning. Other configs start from this one and change what they need.
"""

import os
import re

from ml_collections import ConfigDict

_HELD_OUT_RATIO = 0.1
_MANIFEST_FORMATS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl.gz": "lhotse",
    ".parquet": "parquet",
}


def get_augment(**fields) -> ConfigDict:
    """Returns how audio is altered, for `config.data.augment` and `config.data.eval.NAME.augment`.

    Each kind has a probability for a row, and a range that its strength is drawn from; equal ends are a fixed strength.
    docs/guide/augmentation.md explains the kinds, in the order in which they are applied.
    """
    config = ConfigDict()
    config.silence_prob = 0.0  # silence before and after a row
    config.silence_secs = (0.0, 0.5)  # at each end
    config.room_prob = 0.0  # reverberation
    config.room_source = ""  # folder or list of impulse responses; empty = simulated rooms
    config.room_decay_secs = (0.1, 0.5)  # time in which the sound of a simulated room falls by 60 dB
    config.noise_prob = 0.0  # noise
    config.noise_source = ""  # folder or list of recordings, MUSAN's layout too; empty = white, pink, brown noise, hum
    config.noise_snr_db = (5.0, 30.0)  # ratio of speech to noise
    config.babble_prob = 0.0  # other people: rows of the same set, or speech/ of a noise_source in MUSAN's layout
    config.babble_talkers = (3, 7)  # number of them
    config.babble_snr_db = (10.0, 25.0)  # ratio of speech to babble
    config.equalizer_prob = 0.0  # random frequency response
    config.equalizer_gain_db = (-10.0, 10.0)  # of each octave
    config.low_pass_prob = 0.0  # loss of high frequencies
    config.low_pass_hz = (2_000.0, 7_000.0)  # above this one
    config.gain_prob = 0.0  # another level; without effect on models that normalize
    config.gain_db = (-15.0, 10.0)
    config.clip_prob = 0.0  # clipping
    config.clip_db = (0.0, 15.0)  # how far below the peak
    config.telephone_prob = 0.0  # 8 kHz, 300 to 3,400 Hz
    config.telephone_codecs = ("none", "mulaw", "gsm")  # one of them, each as likely
    config.update(fields)
    return config


def get_eval_set(**fields) -> ConfigDict:
    """Returns one evaluation set for `config.data.eval.NAME`."""
    config = ConfigDict()
    config.format = "tfrecord"  # tfrecord librispeech jsonl csv tsv kaldi lhotse parquet arrow webdataset shar
    config.input = ""  # folder, manifest or pattern of files
    config.split = ""  # part of the corpus; empty = all
    config.text_column = ""  # key or column of the transcripts; empty = text, sentence, transcription ...
    config.speakers = ()  # only these speakers; empty = all
    config.exclude_speakers = ()  # all but these
    config.held_out_ratio = 0.0  # only what a training set over the same corpus leaves out with this ratio; 0 = all
    config.concat_max_utterances = 1  # utterances of one speaker concatenated into a row, 1 to this many; 1 = none
    config.concat_gap_secs = 0.0  # silence between them
    config.augment = get_augment()  # the same alteration at each evaluation, whatever the run's seed
    config.update(fields)
    return config


def get_train_set(**fields) -> ConfigDict:
    """Returns one training corpus for `config.data.more_train.NAME`; `config.data.train` has the same fields."""
    config = ConfigDict()
    config.format = "tfrecord"  # tfrecord librispeech jsonl csv tsv kaldi lhotse parquet arrow webdataset shar
    config.input = ""  # folder, manifest or pattern of files
    config.split = ""  # part of the corpus; empty = all
    config.text_column = ""  # key or column of the transcripts; empty = text, sentence, transcription ...
    config.speakers = ()  # only these speakers; empty = all
    config.exclude_speakers = ()  # all but these
    config.held_out_ratio = 0.0  # share of the speakers left out, for an evaluation set with the same ratio
    config.weight = 1.0  # with data.more_train: its utterances come so many times as often as those of weight 1
    config.update(fields)
    return config


def get_decode() -> ConfigDict:
    """Returns how --mode=eval and --mode=transcribe get text out of logits, for `config.decode`."""
    config = ConfigDict()
    config.method = "greedy"  # greedy | beam (any text) | lexicon (known words, with a language model; needs .[lm])
    config.beam_size = 50  # entries kept from frame to frame
    config.beam_tokens = 0  # likeliest tokens of a frame that are tried; 0 = all
    config.beam_threshold = 25.0  # nats below the best entry at which others are dropped
    config.num_hypotheses = 1  # best texts written to .jsonl, with their scores
    config.lm = ""  # word n-gram of lexicon: ARPA, plain or .gz; a KenLM binary is passed on, untried
    config.lexicon = ""  # file of the words that lexicon knows, one a line; empty = those of an ARPA file
    config.lm_weight = 1.0  # exponent of the language model's probability; --mode=tune_lm finds it
    config.word_score = 0.0  # nats added for each word; --mode=tune_lm finds it
    config.hot_words = ()  # words to prefer, written as the transcripts are
    config.hot_word_score = 4.0  # nats added for each of them
    return config


def get_serve() -> ConfigDict:
    """Returns how --mode=serve listens and what it allows a client; --serve.FIELD=VALUE changes a field."""
    config = ConfigDict()
    config.host = "127.0.0.1"  # address to listen on; 0.0.0.0 = all: there is no password, put a proxy before it
    config.port = 8501  # TensorFlow Serving's for REST; 0 = any free one
    config.name = "earshot"  # NAME of /v1/models/NAME:predict
    config.batch_size = 8  # recordings that run together, and most rows of a prediction
    config.max_pending = 64  # requests waiting or running; more are told to come back (503)
    config.max_connections = 256  # open at a time; so many bodies may lie in the temporary folder
    config.max_body_mb = 64.0  # largest recording; 413 above
    config.max_json_mb = 16.0  # largest prediction request; read into memory, one at a time
    config.max_audio_secs = 600.0  # longest recording; 413 above
    config.body_timeout_secs = 60.0  # for a body to arrive (408), and for an answer to be taken
    config.answer_timeout_secs = 120.0  # from a body to its answer (503)
    config.idle_timeout_secs = 30.0  # for headers to arrive, and between two requests of a connection
    config.cors_origins = ""  # origins whose pages may call, "https://a.example,http://localhost:3000"; * = all
    return config


def get_config() -> ConfigDict:
    """Returns the config of the run described above."""
    config = ConfigDict()
    config.name = ""  # the default workdir is runs/NAME; empty = the name of the config's file
    config.seed = 0  # of weights, order, dropout and masks

    config.model = model = ConfigDict()
    model.source = "native"  # native | hub (a SavedModel with its own dropout and masks, docs/guide/tensorflow_hub.md)
    model.hub_handle = ""  # of source hub: URL of TF-Hub or folder
    model.preset = "auto"  # architecture: auto (that of model.init; base without) | tiny | base | large | large_lv60 |
    # wavlm_base | mms_1b_all | omniasr_1b ... (docs/guide/weights.md has all) | a config.json, ours or of Hugging Face
    model.architecture = ConfigDict()  # the run writes here what a preset that is no name turned out to be
    # Weights to start from: hf://OWNER/NAME[@REVISION], the https address of an archive, a workdir, a checkpoint or a
    # converted folder; empty = random.
    model.init = "hf://facebook/wav2vec2-base"
    model.init_head = False  # whether the CTC head is taken from model.init too, or starts afresh
    model.freeze_feature_encoder = True  # leaves the convolutions as they are
    model.freeze_encoder_updates = 0  # first updates that train the CTC head alone
    model.train_adapters_only = False  # trains the head and the attention adapters of an MMS model, and leaves the rest
    # What trains with the CTC head in place of all weights, which stay those of model.init (docs/guide/training.md):
    model.lora_rank = 0  # LoRA: rank of the updates of lora_targets, such as 8; 0 = none
    model.lora_alpha = 16.0  # the updates count lora_alpha / lora_rank times
    model.lora_dropout = 0.0  # of what the updates read
    # Any of q_proj | k_proj | v_proj | out_proj | intermediate_dense | output_dense, of every layer. Conformers have
    # linear_q | linear_k | linear_v | linear_pos | linear_out | ffn1.intermediate_dense | ffn1.output_dense, and the
    # same of ffn2; there the default means linear_q and linear_v.
    model.lora_targets = ("q_proj", "v_proj")
    model.bottleneck_size = 0  # inner width of bottleneck adapters behind attention and feed-forward, as 64; 0 = none
    model.fused_ops = "auto"  # element-wise parts of training compiled by XLA: auto (wide models) | on | off
    model.gradient_checkpointing = False  # recomputes layers in the backward pass: less memory, a third more time
    model.hidden_dropout = 0.0  # after embeddings, attention and feed-forward blocks
    model.attention_dropout = 0.0  # of attention probabilities
    model.activation_dropout = 0.1  # inside feed-forward blocks
    model.feature_projection_dropout = 0.0  # after the feature projection
    model.convolution_dropout = 0.1  # after the convolutions of conformer layers
    model.final_dropout = 0.0  # before the CTC head
    model.layer_drop = 0.1  # probability that an update skips a transformer layer
    model.mask_time_prob = 0.65  # share of frames under time masks, overlaps counted twice
    model.mask_time_length = 10  # frames of a time mask
    model.mask_time_min_spans = 2  # fewest time masks of a row that has room for them
    model.mask_feature_prob = 0.5  # share of channels under feature masks
    model.mask_feature_length = 64  # channels of a feature mask

    config.data = data = ConfigDict()
    data.prepare_command = (  # what makes the corpus; shown when it is missing
        "python -m data.download --split=train-clean-100 --output=datasets, then python -m data.prepare "
        "--format=librispeech --input=datasets/LibriSpeech --split=train-clean-100 --num_shards=64 "
        "--output=datasets/librispeech/train-clean-100; the same for dev-clean"
    )
    # auto: made of the training texts at the first start, and kept in the workdir. words: the same, each word a token.
    data.vocab = ""  # vocab.json | SentencePiece FILE.model | auto | words; empty = that of published English models
    # librispeech (upper case A-Z') | unicode (NFKC lower case) | none | auto; with options behind it, such as
    # unicode+language=tr+numbers: language=CODE, numbers (as words), drop_markup, keep_case, keep_punctuation
    # (docs/guide/text.md).
    data.text_normalization = "librispeech"
    data.on_rate_mismatch = "resample"  # resample | refuse, for audio that is not 16 kHz
    data.num_buckets = 8  # shapes that batches are padded to
    data.bucket_boundaries_samples = ()  # these lengths instead of chosen ones
    data.min_duration_secs = 0.1  # shorter training utterances are left out, and counted
    data.max_duration_secs = 20.0  # so are longer ones; 0 = no limit
    data.concat_max_utterances = 1  # utterances of one speaker concatenated into a row, anew in each epoch; 1 = none
    data.concat_max_secs = 0.0  # longest concatenated row; 0 = no limit
    data.concat_gap_secs = 0.0  # silence between concatenated utterances
    data.speed_factors = (1.0,)  # playing speeds to draw from
    data.augment = get_augment()  # of training rows, anew in each epoch
    data.max_batch_secs = 0.0  # most audio of one update, with padding, over all replicas; 0 = train.global_batch_size
    data.row_multiple = 8  # with max_batch_secs: rows are a multiple of this; no padding rows on devices that divide it
    data.allow_train_eval_overlap = False  # lets evaluation utterances be in training; else such a run is refused
    data.doctor_max_hours = 100.0  # of audio that --mode=doctor decodes of a set; beyond, a sample; 0 = no limit
    data.max_unreadable_ratio = 0.01  # largest ratio of unreadable training rows; a run sure of more stops, saved
    data.num_parallel_calls = 0  # batches decoded at the same time; 0 = as many as the processor has cores
    data.prefetch_batches = 0  # decoded batches of one replica kept ready; 0 = those of two updates, at least four

    data.train = get_train_set(input="datasets/librispeech", split="train-clean-100")
    # Further corpora to train on, data.more_train["NAME"] = get_train_set(input=...); a run mixes all of them.
    data.more_train = ConfigDict()
    data.sampling_alpha = 1.0  # corpus i makes up weight_i x hours_i^alpha of an epoch; 1 = as it is, 0 = equally much

    data.eval = ConfigDict()
    # Underscores: a flag (--config.data.eval.dev_clean.input=...) cannot spell a hyphen.
    data.eval["dev_clean"] = get_eval_set(input="datasets/librispeech", split="dev-clean")

    config.train = train = ConfigDict()
    train.global_batch_size = 32  # rows of one update, over all replicas (the published recipe: about 400 s of audio)
    train.microbatch_rows = 4  # rows that one device computes at a time: what its memory holds; changes no result
    train.microbatch_secs = 0.0  # most audio at a time instead, with padding, or one row; 0 = train.microbatch_rows
    train.num_updates = 80_000  # optimizer updates; a run may be made longer as long as its decay has not begun
    train.num_epochs = 0.0  # passes over the training data; then num_updates must be 0
    train.loss_divisor = "utterances"  # utterances | label_tokens: what an update's summed loss is divided by
    train.cr_ctc_scale = 0.0  # weight of the divergence between two differently masked views of a row; 0 = one view
    train.cr_ctc_warmup_updates = 0  # first updates in which that weight rises from 0
    train.cr_ctc_mask_factor = 2.5  # of model.mask_time_prob, with two views
    train.intermediate_ctc_layers = ()  # transformer layers, from 1, whose outputs have a CTC loss too
    train.intermediate_ctc_weight = 0.3  # of the mean of these losses; the last layer has the rest of 1
    train.precision = "mixed_bfloat16"  # float32 | mixed_bfloat16 | mixed_float16
    train.optimizer = "adam"  # adam | adamw
    train.learning_rate = 3e-5  # peak
    train.head_learning_rate_factor = 1.0  # learning rate of the CTC head as a multiple of everything else's
    train.schedule = "tri_stage"  # constant | linear | cosine | tri_stage
    train.warmup_updates = 8_000  # linear rise
    train.hold_updates = 32_000  # at the peak, before the decay
    train.warmup_ratio = 0.0  # warm-up as a share of num_updates; then warmup_updates must be 0
    train.hold_ratio = 0.0  # hold as a share of num_updates; then hold_updates must be 0. What is left of 1 is decay
    train.beta_1 = 0.9  # Adam's first moment
    train.beta_2 = 0.98  # Adam's second moment
    train.epsilon = 1e-8  # Adam's denominator
    train.weight_decay = 0.0  # of adamw; biases and norms are never decayed
    train.clip_norm = 0.0  # largest global gradient norm; 0 = no clipping
    train.ema_decay = 0.0  # of averaged weights, evaluated beside the raw ones as SET-ema; 0 = none
    train.max_consecutive_skips = 20  # updates whose loss or gradient is not finite that stop the run; 0 = never
    train.log_every_updates = 50  # updates of one inner loop, and of one line in metrics.jsonl

    config.eval = evaluation = ConfigDict()
    evaluation.every_updates = 2_000  # 0 = only at the end
    evaluation.every_epochs = 0.0  # the interval in epochs; then every_updates must be 0
    evaluation.batch_size = 16  # rows of a batch, over all replicas; rounded up to a multiple of them
    evaluation.best_metric_set = "dev_clean"  # evaluation set whose error rate decides about best/
    evaluation.best_metric = "auto"  # wer | cer, the rate that decides; auto: wer, or cer if its texts have no spaces
    evaluation.early_stopping_patience = 0  # evaluations without a lower rate of best_metric_set to stop at; 0 = never
    # Further scorings, NAME=STYLE each, such as plain=unicode+drop_markup: reported as SET-NAME.
    evaluation.normalizers = ()
    # Fields of a manifest with at most 50 values, whose values the reports list apart; * = every such field.
    evaluation.slices = (
        "accent", "accents", "age", "dialect", "domain", "gender", "lang", "language", "locale", "noise", "sex",
        "variant",
    )  # fmt: skip
    evaluation.idle_timeout_secs = 3_600.0  # continuous_eval ends when no new checkpoint comes for this long
    evaluation.num_logged = 3  # sample predictions in the log
    evaluation.report_utterances = 100  # worst utterances of each set listed in report.html; 0 = no report
    evaluation.report_max_audio_mb = 8.0  # of them to listen to, on the whole page, the worst first; 0 = none

    config.decode = get_decode()

    config.tune_lm = tune = ConfigDict()  # of --mode=tune_lm, on eval.best_metric_set
    tune.lm_weights = (0.25, 0.5, 0.75, 1.0, 1.5)  # tried with each of word_scores
    tune.word_scores = (-1.0, 0.0, 1.0, 2.0)
    tune.num_refinements = 2  # times that the neighbours of the best are tried, each time at half the distance
    tune.max_utterances = 500  # of the set; 0 = all

    config.pseudo_label = pseudo = ConfigDict()  # of --mode=pseudo_label (docs/guide/pseudo_labels.md); 0 = no bound
    pseudo.min_confidence = 0.9  # geometric mean of the characters' probabilities
    pseudo.min_chars_per_sec = 2.0  # characters a second, without spaces
    pseudo.max_chars_per_sec = 30.0
    pseudo.min_words_per_sec = 0.0  # words a second, for languages with spaces
    pseudo.max_words_per_sec = 0.0
    pseudo.min_duration_secs = 0.1  # of a label
    pseudo.max_duration_secs = 20.0  # longer recordings are cut at the longest pauses between words
    pseudo.second_speed = 1.0  # playing speed of a second view, such as 1.1, whose text must agree; 1 = none
    pseudo.second_checkpoint = ""  # recognizer of the second view; empty = that of --checkpoint
    pseudo.max_disagreement = 0.1  # CER of the second view's text against the first; 0 = the same text
    pseudo.batch_size = 8  # recordings of a replica that run together

    config.segment = segment = ConfigDict()  # of --mode=segment (docs/guide/segments.md)
    segment.min_secs = 1.0  # shortest utterance
    segment.max_secs = 15.0  # longest utterance; longer ones are cut at their longest pauses
    segment.pause_secs = 1.0  # a pause that always ends an utterance
    segment.margin_secs = 0.2  # most of a pause that an utterance keeps at each end
    segment.min_confidence = 0.2  # geometric mean of the characters' probabilities
    segment.min_word_confidence = 0.05  # a word below it counts as not said
    segment.unknown_loss = 2.0  # nats that a frame of speech costs that is not in the transcript
    segment.skip_loss = 3.0  # nats that a word of the transcript costs that was not said
    segment.formats = ()  # files of the utterances beside the manifest: srt, vtt, textgrid, eaf

    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every_updates = 500  # a multiple of train.log_every_updates saves at exactly these updates
    checkpoint.every_epochs = 0.0  # the interval in epochs; then every_updates must be 0
    checkpoint.keep = 3  # newest checkpoints kept, beside the best
    checkpoint.background = True  # training goes on while one is written, from a copy in memory; on one host alone

    config.verify_resume = verify = ConfigDict()  # of --mode=verify_resume
    verify.num_updates = 0  # updates of the two runs; 0 = train.num_updates
    verify.num_interruptions = 6  # times that the second run is ended
    verify.signals = ("SIGTERM", "SIGKILL")  # in turn
    verify.seed = 0  # of the moments

    config.runtime = runtime = ConfigDict()
    runtime.stop_within_secs = 30.0  # from SIGTERM, SIGHUP or Ctrl-C to the end, saved or not; 0 = as long as it takes
    runtime.num_virtual_devices = 0  # splits the first GPU, or the CPU, into logical devices, to try a strategy
    runtime.deterministic = False  # same results in every run on GPUs too, where some operations are slower for it
    # CTC loss: auto (by device) | scan (frame by frame) | host (scan on the CPU beside a GPU) | xla (scan, compiled) |
    # blocks (of frames, compiled) | cudnn (GPU, at most 256 labels, less exact)
    runtime.ctc_backend = "auto"
    runtime.jit_compile = "auto"  # XLA compiles whole steps: auto (on GPUs, with at most 8 buckets) | on | off
    runtime.loop_in_graph = False  # updates in a loop in the graph, two seconds of them at a time; always so on a TPU
    runtime.cluster_start_secs = 600.0  # how long the workers of --strategy=multi_worker wait for each other
    runtime.heartbeat_secs = 20.0  # a worker silent for so long is given up, and the others stop
    return config


def get_small_config() -> ConfigDict:
    """Returns the recipe that trains the tiny model from random weights; the small configs start from this one."""
    config = get_config()
    config.model.preset = "tiny"
    config.model.init = ""
    config.model.freeze_feature_encoder = False
    # A few epochs of plentiful data: what regularizes slows down more than it helps (docs/decisions/0004).
    config.model.activation_dropout = 0.0
    config.model.layer_drop = 0.0
    config.model.mask_time_prob = 0.05
    config.model.mask_time_length = 5
    config.model.mask_time_min_spans = 0
    config.model.mask_feature_prob = 0.0
    config.model.mask_feature_length = 16

    config.data.prepare_command = ""
    config.data.num_buckets = 6
    config.data.train.split = ""
    config.data.eval = ConfigDict()

    config.train.global_batch_size = 16
    config.train.microbatch_rows = 16
    config.train.num_updates = 1_600
    config.train.precision = "float32"
    config.train.optimizer = "adamw"
    config.train.learning_rate = 2.5e-3
    config.train.schedule = "linear"
    config.train.warmup_updates = 60
    config.train.hold_updates = 600
    config.train.weight_decay = 0.01
    config.train.clip_norm = 1.0
    config.train.log_every_updates = 20

    config.eval.every_updates = 400
    config.eval.batch_size = 32
    config.checkpoint.every_updates = 100
    return config


def set_corpora(data: ConfigDict, train: str, dev: str = "") -> None:
    """Makes a config train on one corpus and evaluate on another as "dev", or on held-out speakers of the first.

    Args:
        data: `config.data`, which is changed.
        train: Manifest (.jsonl, .csv, .tsv, .parquet), Lhotse's cuts (.jsonl.gz), hf://datasets/OWNER/NAME, or a
            folder: of `python -m data.prepare`, or of Kaldi where wav.scp is in it.
        dev: Corpus to evaluate on, in any of the forms of `train`; "" = the speakers of a tenth of `train`, which
            training leaves out.
    """
    data.eval = ConfigDict()
    data.eval["dev"] = get_eval_set()
    _point_at(data.train, train)
    _point_at(data.eval["dev"], dev or train)
    if not dev:
        data.train.held_out_ratio = data.eval["dev"].held_out_ratio = _HELD_OUT_RATIO


def _point_at(corpus: ConfigDict, path: str) -> None:
    corpus.update(format=_format_of(path), input=path, split="")


def _format_of(path: str) -> str:
    if path.startswith("hf://datasets/"):
        return "parquet"
    if os.path.isfile(os.path.join(path, "wav.scp")):
        return "kaldi"
    is_folder = os.path.isdir(path) or not os.path.splitext(path)[1]
    return "tfrecord" if is_folder else _MANIFEST_FORMATS.get(_manifest_suffix(path), "jsonl")


def name_after(path: str) -> str:
    """Returns the path without its suffix as one word: two manifests have two, wherever they lie."""
    path = os.path.normpath(path)
    # Letters of any script, with their marks; the rest parts words.
    words = re.findall(r"[^\s/\\:,\"'`$&|;<>*?!(){}\[\]~#]+", path[: len(path) - len(_manifest_suffix(path))])
    return "-".join(word for word in words if word.strip("."))[-100:]


def _manifest_suffix(path: str) -> str:
    """Returns the suffix of a manifest, "" where there is another: a folder may be called v1.0."""
    suffix = ".jsonl.gz" if path.lower().endswith(".jsonl.gz") else os.path.splitext(path)[1].lower()
    return suffix if suffix in _MANIFEST_FORMATS else ""
