"""The acoustic model and what turns its logits into losses and text; tensors in, tensors out."""
