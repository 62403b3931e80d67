"""200 updates of torch.optim.Adam and AdamW; tests/engine/training/test_fused_adam.py holds the last weights.

With PyTorch (2.13 made the table), which the program and its tests do not need:

    python -m tests.golden.adam_reference

The gradients span 1e-9 to 10; the encoder gets none in the first `freeze_updates`, as `grad = None` in PyTorch; biases
are not decayed. Gradients are clipped to a common norm of 1.
"""

from __future__ import annotations

import numpy as np

NUM_UPDATES, CLIP_NORM = 200, 1.0
BETA_1, EPSILON = 0.9, 1e-8
# Name: beta_2, weight decay, updates that the encoder sits out. 0.98 is the published recipe's.
CASES = {
    "adam": (0.999, 0.0, 0),
    "adam, frozen start": (0.999, 0.0, 37),
    "adamw": (0.98, 0.01, 0),
    "adamw, frozen start": (0.98, 0.01, 37),
}
NAMES = ("encoder/kernel", "encoder/bias", "head/kernel")


def learning_rate(update: int) -> float:
    """A warm-up, then a decay; float32 numbers, as the schedules give them."""
    return float(np.float32(1e-3 * min((update + 1) / 50, (NUM_UPDATES - update) / 150)))


def first_weights() -> list[np.ndarray]:
    rng = np.random.default_rng(14)
    return [rng.normal(size=4).astype(np.float32) for _ in NAMES]


def raw_gradients(update: int) -> list[np.ndarray]:
    """Of one update, before clipping; the sizes of a variable's elements differ, and stay what they are."""
    rng = np.random.default_rng([14, update])
    sizes = np.array([1e-9, 1e-6, 1e-3, 1.0]) * (10.0 if update % 20 == 3 else 1.0)
    return [((rng.normal(size=4) + 0.5) * sizes).astype(np.float32) for _ in NAMES]


def train_with_torch(case: str) -> list[np.ndarray]:
    """Returns the weights after all updates, as torch.optim has them in float32."""
    import torch

    beta_2, weight_decay, freeze_updates = CASES[case]
    weights = [torch.nn.Parameter(torch.from_numpy(weight)) for weight in first_weights()]
    options = {"lr": 1.0, "betas": (BETA_1, beta_2), "eps": EPSILON}
    if weight_decay:
        groups = [
            {"params": [w], "weight_decay": 0.0 if "bias" in name else weight_decay}
            for name, w in zip(NAMES, weights, strict=True)
        ]
        optimizer = torch.optim.AdamW(groups, **options)
    else:
        optimizer = torch.optim.Adam(weights, **options)
    for update in range(NUM_UPDATES):
        for name, weight, gradient in zip(NAMES, weights, raw_gradients(update), strict=True):
            is_frozen = update < freeze_updates and name.startswith("encoder")
            weight.grad = None if is_frozen else torch.from_numpy(gradient)
        torch.nn.utils.clip_grad_norm_(weights, CLIP_NORM)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(update)
        optimizer.step()
    return [weight.detach().numpy() for weight in weights]


if __name__ == "__main__":
    for case in CASES:
        print(f'    "{case}": [')
        for weight in train_with_torch(case):
            print(f"        [{', '.join(f'{x:.9f}' for x in weight)}],")
        print("    ],")
