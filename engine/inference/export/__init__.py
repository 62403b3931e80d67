"""A trained model as SavedModel, TFLite and ONNX, checked against the run it came from."""
