"""Exports of a trained model as SavedModel, TFLite and ONNX, each checked against the model."""
