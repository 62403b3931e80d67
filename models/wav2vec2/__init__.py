"""The wav2vec 2.0 network: feature encoder, transformer, masking, configs and saved folders.

The network itself is imported when its name is first used: presets and configs are read before TensorFlow starts.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.wav2vec2.model import Wav2Vec2ForCTC

__all__ = ["Wav2Vec2ForCTC"]


def __getattr__(name: str) -> Any:
    """Imports the network on first use."""
    if name != "Wav2Vec2ForCTC":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.wav2vec2.model import Wav2Vec2ForCTC

    return Wav2Vec2ForCTC
