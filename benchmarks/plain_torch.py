"""Builds wav2vec 2.0 in plain PyTorch, for a machine that has PyTorch and no transformers.

It computes what `transformers.Wav2Vec2ForCTC` does, with parameters of the same names and fused attention, except that
it draws no time or feature masks, which only makes it faster. Of the project it imports nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Model(nn.Module):
    """A model of the architecture in the fields of a Hugging Face config; padded rows are not masked."""

    def __init__(self, **fields: Any) -> None:
        """Builds the layers; `fields` are those that `models.hugging_face.config.to_hf` returns."""
        super().__init__()
        self.wav2vec2 = nn.ModuleDict(
            {
                "feature_extractor": _FeatureEncoder(fields),
                "feature_projection": _Projection(fields),
                "encoder": _Encoder(fields),
            }
        )
        self.dropout = nn.Dropout(fields["final_dropout"])
        self.lm_head = nn.Linear(fields["hidden_size"], fields["vocab_size"])

    def freeze_feature_encoder(self) -> None:
        """Leaves the convolutions as they are."""
        for parameter in self.wav2vec2["feature_extractor"].parameters():
            parameter.requires_grad = False

    def logits(self, input_values: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, F, V] of waveforms [B, T]."""
        parts = self.wav2vec2
        hidden = parts["encoder"](parts["feature_projection"](parts["feature_extractor"](input_values)))
        return self.lm_head(self.dropout(hidden))

    def forward(self, input_values: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Returns logits, or with labels [B, L], negative where there is none, the summed CTC loss of the rows."""
        logits = self.logits(input_values)
        if labels is None:
            return logits
        log_probs = nn.functional.log_softmax(logits, dim=-1, dtype=torch.float32).transpose(0, 1)
        lengths = torch.full([len(labels)], logits.shape[1], device=labels.device)
        is_label = labels >= 0
        with torch.backends.cudnn.flags(enabled=False):
            return nn.functional.ctc_loss(
                log_probs, labels.masked_select(is_label), lengths, is_label.sum(-1), blank=0, reduction="sum"
            )


class _Convolution(nn.Module):
    def __init__(self, fields: dict[str, Any], number: int) -> None:
        super().__init__()
        width = fields["conv_dim"][number]
        self.conv = nn.Conv1d(
            fields["conv_dim"][number - 1] if number else 1,
            width,
            fields["conv_kernel"][number],
            fields["conv_stride"][number],
            bias=fields["conv_bias"],
        )
        self.is_group = fields["feat_extract_norm"] == "group"
        if not self.is_group:
            self.layer_norm: nn.Module | None = nn.LayerNorm(width)
        else:
            self.layer_norm = nn.GroupNorm(width, width) if number == 0 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if self.layer_norm is not None:
            x = self.layer_norm(x) if self.is_group else self.layer_norm(x.transpose(1, 2)).transpose(1, 2)
        return nn.functional.gelu(x)


class _FeatureEncoder(nn.Module):
    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(_Convolution(fields, number) for number in range(len(fields["conv_dim"])))

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        x = input_values[:, None]
        for layer in self.conv_layers:
            x = layer(x)
        return x.transpose(1, 2)


class _Projection(nn.Module):
    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(fields["conv_dim"][-1], eps=fields["layer_norm_eps"])
        self.projection = nn.Linear(fields["conv_dim"][-1], fields["hidden_size"])
        self.dropout = nn.Dropout(fields["feat_proj_dropout"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.projection(self.layer_norm(x)))


class _Positions(nn.Module):
    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        size, kernel = fields["hidden_size"], fields["num_conv_pos_embeddings"]
        groups = fields["num_conv_pos_embedding_groups"]
        conv = nn.Conv1d(size, size, kernel, padding=kernel // 2, groups=groups)
        self.conv = nn.utils.parametrizations.weight_norm(conv, name="weight", dim=2)
        self.num_extra = 1 - kernel % 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x.transpose(1, 2))
        return nn.functional.gelu(x[:, :, : x.shape[2] - self.num_extra]).transpose(1, 2)


class _Attention(nn.Module):
    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        size = fields["hidden_size"]
        self.num_heads, self.drop = fields["num_attention_heads"], fields["attention_dropout"]
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, frames, size = x.shape
        q, k, v = (
            projection(x).view(rows, frames, self.num_heads, -1).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        drop = self.drop if self.training else 0.0
        context = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        return self.out_proj(context.transpose(1, 2).reshape(rows, frames, size))


class _FeedForward(nn.Module):
    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(fields["hidden_size"], fields["intermediate_size"])
        self.output_dense = nn.Linear(fields["intermediate_size"], fields["hidden_size"])
        self.inner_dropout = nn.Dropout(fields["activation_dropout"])
        self.dropout = nn.Dropout(fields["hidden_dropout"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner_dropout(nn.functional.gelu(self.intermediate_dense(x)))
        return self.dropout(self.output_dense(x))


class _Layer(nn.Module):
    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        self.attention, self.feed_forward = _Attention(fields), _FeedForward(fields)
        self.dropout = nn.Dropout(fields["hidden_dropout"])
        self.layer_norm = nn.LayerNorm(fields["hidden_size"], eps=fields["layer_norm_eps"])
        self.final_layer_norm = nn.LayerNorm(fields["hidden_size"], eps=fields["layer_norm_eps"])
        self.is_stable = fields["do_stable_layer_norm"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.is_stable:
            x = x + self.dropout(self.attention(self.layer_norm(x)))
            return x + self.feed_forward(self.final_layer_norm(x))
        x = self.layer_norm(x + self.dropout(self.attention(x)))
        return self.final_layer_norm(x + self.feed_forward(x))


class _Encoder(nn.Module):
    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        self.pos_conv_embed = _Positions(fields)
        self.layer_norm = nn.LayerNorm(fields["hidden_size"], eps=fields["layer_norm_eps"])
        self.dropout = nn.Dropout(fields["hidden_dropout"])
        self.layers = nn.ModuleList(_Layer(fields) for _ in range(fields["num_hidden_layers"]))
        self.is_stable = fields["do_stable_layer_norm"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.pos_conv_embed(x)
        x = self.dropout(x if self.is_stable else self.layer_norm(x))
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x) if self.is_stable else x
