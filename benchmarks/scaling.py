"""Estimates the cost of a run on other machines: communication, input, memory and compilations.

    python -m benchmarks.scaling

It prints the tables of docs/scaling.md, which explains them; a test compares the two. Nothing is measured: peak rates
are the vendors', and the fraction of the peak that a step reaches is an assumption.
"""

from __future__ import annotations

import dataclasses

from models.memory_estimate import measure_model
from models.wav2vec2.config import Wav2Vec2Config, preset

SAMPLE_RATE = 16_000
REACHED_RATIO = 0.3  # fraction of the peak, an assumption
ROW_SECS = 15.0
ROWS_PER_REPLICA = 4  # of one microbatch


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine by its vendor's specification.

    Attributes:
        name: Name in the table.
        replicas: Devices with a copy of the model.
        hosts: Machines that feed them.
        peak_tflops: Peak rate of one replica in bfloat16.
        memory_gib: Memory of one replica.
        link_gbytes: Bandwidth of the ring from one replica to the next, in GB/s.
        num_buckets: Shapes of batches, for each of which XLA compiles a training and an evaluation step.
    """

    name: str
    replicas: int
    hosts: int
    peak_tflops: float
    memory_gib: float
    link_gbytes: float
    num_buckets: int


MACHINES = (
    Machine("8 x A100 80 GB", 8, 1, 312.0, 80.0, 300.0, 8),
    Machine("TPU v3-8", 8, 1, 61.5, 16.0, 70.0, 1),
    # 16 chips of two cores that act as one device.
    Machine("TPU v4-32", 16, 4, 275.0, 32.0, 50.0, 1),
)


def count_parameters(config: Wav2Vec2Config) -> dict[str, int]:
    """Returns the parameters of the feature encoder, and of everything trained while it is frozen."""
    encoder, channels = 0, 1
    for i, (size, kernel) in enumerate(zip(config.conv_dim, config.conv_kernel, strict=True)):
        encoder += kernel * channels * size + (size if config.conv_bias else 0)
        encoder += 2 * size if config.feature_norm == "layer" or i == 0 else 0
        channels = size
    d, inner = config.hidden_size, config.intermediate_size
    layer = 4 * d * d + 4 * d + 2 * d * inner + d + inner + 4 * d
    positions = config.pos_conv_kernel * (d // config.pos_conv_groups) * d + config.pos_conv_kernel + d
    projection = (2 * channels if config.feature_projection_norm else 0) + channels * d + d
    trained = projection + d + positions + 2 * d + config.num_layers * layer + d * config.vocab_size + config.vocab_size
    return {"feature_encoder": encoder, "trained": trained}


def num_frames(config: Wav2Vec2Config, secs: float) -> int:
    """Returns the frames of a row."""
    length = int(secs * SAMPLE_RATE)
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        length = (length - kernel) // stride + 1
    return length


def flops_per_row(config: Wav2Vec2Config, secs: float) -> float:
    """Returns the operations of a training step; backward costs twice the forward pass, and frozen layers none."""
    length, channels, convolutions = int(secs * SAMPLE_RATE), 1, 0.0
    for size, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        length = (length - kernel) // stride + 1
        convolutions += 2.0 * length * kernel * channels * size
        channels = size
    frames, d = length, config.hidden_size
    per_frame = 2.0 * (4 * d * d + 2 * d * config.intermediate_size)
    attention = 4.0 * frames * d
    positions = 2.0 * config.pos_conv_kernel * (d // config.pos_conv_groups) * d
    return convolutions + 3.0 * frames * (config.num_layers * (per_frame + attention) + positions)


def activation_bytes_per_row(name: str, secs: float) -> int:
    """Returns the bytes that a row of a preset adds in bfloat16, by the doctor's estimate of compiled steps."""
    estimate = measure_model(
        source="native", preset=name, hub_handle="", vocab_size=32, precision="mixed_bfloat16",
        freeze_feature_encoder=True, is_compiled_whole=True,
    )  # fmt: skip
    one, two = (estimate.memory_bytes(num_rows, int(secs * SAMPLE_RATE), True) or 0 for num_rows in (1, 2))
    return two - one


def rows() -> list[tuple[str, ...]]:
    """Returns the table, one row per model and machine."""
    table = []
    for name in ("base", "large"):
        config = preset(name)
        trained = count_parameters(config)["trained"]
        total = sum(count_parameters(config).values())
        for machine in MACHINES:
            row_secs = flops_per_row(config, ROW_SECS) / (machine.peak_tflops * 1e12 * REACHED_RATIO)
            step_secs = ROWS_PER_REPLICA * row_secs
            sent = 2 * (machine.replicas - 1) / machine.replicas * 4 * trained
            reduce_secs = sent / (machine.link_gbytes * 1e9)
            audio_rate = machine.replicas * ROWS_PER_REPLICA * ROW_SECS / (step_secs + reduce_secs)
            # Weights, gradient, sum over microbatches and two moments in float32; the frozen part has only weights.
            state = 4.0 * total + 16.0 * trained
            row = activation_bytes_per_row(name, ROW_SECS)
            fitting = int((machine.memory_gib * 2**30 * 0.9 - state) // row)
            table.append(
                (
                    name,
                    machine.name,
                    f"{4 * trained / 1e9:.2f}",
                    f"{sent / 1e9:.2f}",
                    f"{1e3 * step_secs:.0f}",
                    f"{1e3 * reduce_secs:.1f}",
                    f"{reduce_secs / (step_secs + reduce_secs):.1%}",
                    f"{audio_rate / machine.hosts:.0f}",
                    f"{audio_rate / machine.hosts * SAMPLE_RATE * 2 / 1e6:.0f}",
                    f"{(state + ROWS_PER_REPLICA * row) / 2**30:.1f}",
                    str(fitting),
                    str(2 * machine.num_buckets),
                )
            )
    return table


COLUMNS = (
    "model", "machine", "gradient GB", "sent per replica GB", "compute ms", "all-reduce ms", "share",
    "audio-s/s per host", "input MB/s per host", "memory GiB", "rows that fit", "steps compiled whole",
)  # fmt: skip


def markdown() -> str:
    """Returns the table in Markdown, as docs/scaling.md has it."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *rows()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(markdown())
