"""The routes of OpenAI's protocol; `openai_json` has the bodies.

POST /v1/audio/transcriptions          a form with the recording -> transcript
GET  /v1/models                        the list of the one model (`tf_serving_api` answers /v1/models/NAME)
"""

from __future__ import annotations

import json

from engine.inference.serving import openai_json, uploads
from engine.inference.serving.answers import OPENAI, Answer
from engine.inference.serving.handlers import BodyHandler, Handler


class TranscriptionsHandler(BodyHandler):
    """Answers a form with a recording by its transcript, in OpenAI's form."""

    kind = OPENAI

    def check_headers(self) -> Answer | None:
        """Returns the refusal of a body that is not a form, or that no route takes, else None."""
        content_type = self.request.headers.get("Content-Type", "")
        if not uploads.is_form(content_type):
            return self.refuse(
                415,
                f"unsupported Content-Type {content_type[:100]!r}; send multipart/form-data: "
                "curl -F file=@speech.wav -F model=NAME",
            )
        return super().check_headers()

    def refuse(self, status: int, message: str) -> Answer:
        """Returns an error answer in OpenAI's form."""
        return openai_json.refuse(status, message)


class UnknownHandler(Handler):
    """Refuses OpenAI's other routes for audio, so that its clients see the reason."""

    def find_refusal(self) -> Answer:
        """Names the routes that exist."""
        return self.refuse(404, "nothing is served here; there are POST /v1/audio/transcriptions and GET /v1/models")

    def refuse(self, status: int, message: str) -> Answer:
        """Returns an error answer in OpenAI's form."""
        return openai_json.refuse(status, message)


class ModelsHandler(Handler):
    """Lists the model that is served."""

    def get(self) -> None:
        """Answers with a list of one model."""
        model = openai_json.describe_model(self.service.limits.name, created=self.service.started_secs)
        self.finish(json.dumps({"object": "list", "data": [model]}))
