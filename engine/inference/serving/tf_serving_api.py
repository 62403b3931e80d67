"""The routes of TensorFlow Serving's REST protocol; `tf_serving_json` has the bodies.

POST /v1/models/NAME:predict           rows of samples -> the outputs of the signature; /versions/1 is allowed
GET  /v1/models/NAME                   status of the model, with the fields that OpenAI's clients read
GET  /v1/models/NAME/metadata          the signature
"""

from __future__ import annotations

import json

from engine.inference.serving import openai_json
from engine.inference.serving.answers import PREDICT, Answer
from engine.inference.serving.handlers import BodyHandler, Handler

_STATE = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


class StatusHandler(Handler):
    """Says that the model is served."""

    def find_refusal(self) -> Answer | None:
        """Returns the refusal of a wrong method or another model, else None."""
        return super().find_refusal() or _refuse_other_model(self)

    def get(self, name: str, version: str | None) -> None:
        """Answers with the state of the model's one version."""
        # OpenAI's clients ask for a model at the same path.
        described = openai_json.describe_model(name, created=self.service.started_secs)
        self.finish(json.dumps({"model_version_status": [_STATE], **described}))


class MetadataHandler(Handler):
    """Answers with the signature of the model."""

    def find_refusal(self) -> Answer | None:
        """Returns the refusal of a wrong method or another model, else None."""
        return super().find_refusal() or _refuse_other_model(self)

    def get(self, name: str, version: str | None) -> None:
        """Answers with the signature of the model's one version."""
        self.finish(json.dumps(self.service.metadata))


class PredictHandler(BodyHandler):
    """Answers rows of samples with the outputs of the signature."""

    kind = PREDICT

    @property
    def max_bytes(self) -> int:
        """Largest JSON body."""
        return self.service.limits.max_json_bytes

    def check_headers(self) -> Answer | None:
        """Returns the refusal of another model or of a body that the route does not take, else None."""
        return _refuse_other_model(self) or super().check_headers()


def _refuse_other_model(handler: Handler) -> Answer | None:
    name, version = handler.path_args
    wanted = handler.service.limits.name
    if name == wanted and version in (None, "1"):
        return None
    version = f" version {version}" if version else ""
    return handler.refuse(404, f"no model {name}{version} is served here, only {wanted} version 1")
