"""The wav2vec 2.0 network: feature encoder, transformer, masking, architectures and saved models."""

from models.wav2vec2.model import Wav2Vec2ForCTC

__all__ = ["Wav2Vec2ForCTC"]
