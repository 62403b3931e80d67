"""The wav2vec 2.0 network: feature encoder, transformer, masking, configs and saved folders."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.wav2vec2.model import Wav2Vec2ForCTC

__all__ = ["Wav2Vec2ForCTC"]


def __getattr__(name: str) -> Any:
    # TensorFlow takes seconds to import. A wrong flag, which is checked against the presets, does not wait for it.
    if name == "Wav2Vec2ForCTC":
        from models.wav2vec2.model import Wav2Vec2ForCTC

        return Wav2Vec2ForCTC
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
