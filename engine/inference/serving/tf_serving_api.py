"""The routes of TensorFlow Serving's REST protocol; `tf_serving_json` has the bodies.

POST /v1/models/NAME:predict           rows of samples -> the outputs of the signature; /versions/1 is allowed
GET  /v1/models/NAME                   status of the model, with the fields that OpenAI's clients read
GET  /v1/models/NAME/metadata          the signature
"""

from __future__ import annotations

import json

from engine.inference.serving import openai_json
from engine.inference.serving.answers import PREDICT
from engine.inference.serving.handlers import BodyHandler, ClientError, Handler

_STATE = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


class StatusHandler(Handler):
    """Says that the model is served."""

    def get(self, name: str, version: str | None) -> None:
        """Answers with the state of the model's one version."""
        _check_model(self, name, version)
        # OpenAI's clients ask for a model at the same path.
        described = openai_json.describe_model(name, created=self.service.started_secs)
        self.finish(json.dumps({"model_version_status": [_STATE], **described}))


class MetadataHandler(Handler):
    """Answers with the signature of the model."""

    def get(self, name: str, version: str | None) -> None:
        """Answers with the signature if the model has this name and version."""
        _check_model(self, name, version)
        self.finish(json.dumps(self.service.metadata))


class PredictHandler(BodyHandler):
    """Answers rows of samples with the outputs of the signature."""

    kind = PREDICT

    @property
    def max_bytes(self) -> int:
        """Largest JSON body."""
        return self.service.limits.max_json_bytes

    def prepare(self) -> None:
        """Refuses a request for another model before its body is read."""
        if self.request.method == "POST":
            _check_model(self, *self.path_args)
        super().prepare()


def _check_model(handler: Handler, name: str, version: str | None) -> None:
    wanted = handler.service.limits.name
    if name != wanted or version not in (None, "1"):
        version = f" version {version}" if version else ""
        raise ClientError(404, f"no model {name}{version} is served here, only {wanted} version 1")
