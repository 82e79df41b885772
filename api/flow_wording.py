"""What the flows door's fields mean, and what its requests and answers look like."""

from collections.abc import Mapping
from typing import Any

from shared.domain.flow_answers import FlowAnswer
from shared.domain.inference import InferenceAnswer
from shared.services.flow_parameters import FlowParameter

_RUN = "019ab3c4-5d6e-7f80-9a1b-2c3d4e5f6071"
_MOMENT = "2026-11-22T12:00:00.123Z"
_ASKED: dict[str, Any] = {"parameters": {"name": "Ada"}, "environment": "production"}
_SENT = [
    {"role": "system", "text": "You greet people in one short sentence."},
    {"role": "client", "text": "Say hello to Ada."},
]
_SAID = "You said: Say hello to Ada."
_TOKENS = {"tokensIn": 18, "tokensOut": 8, "tokensTotal": 26}
_FIRST = {
    "id": "019ab3c4-5d6e-7f80-9a1b-2c3d4e5f6073",
    "idCreated": _MOMENT,
    "shuttleRequestId": _RUN,
    "messages": _SENT,
    "model": "echo",
    "maxTokens": None,
    "seed": 0,
    "temperature": None,
    "topP": None,
    "topK": None,
}
_ANSWER = {
    "model": "echo",
    "provider": "sim",
    "usage": _TOKENS | {"costUsd": 0.0000066, "costCredits": 6},
    "textResponse": _SAID,
    "verbatimResponse": '{"model":"echo","text":"You said: Say hello to Ada."}',
    "error": None,
}

REQUEST: Mapping[str, str] = {
    "parameters": "A value for each `[[token]]`; what is left out is a warning in the answer.",
    "environment": "The environment's name; the default one when left out.",
    "overrideModel": "Another model than the version's.",
    "tags": "Labels of the run, at most 10.",
    "entrypoint": "The template to start from; the version's own when left out.",
    "version": "A version's number or id; what the environment pins when left out.",
    "messages": "Said behind the template's own messages: `role` is `client`, `assistant` or "
    "`system`.",
    "temperature": "From 0 to 2, before the template's.",
    "maxTokens": "Of the answer, reasoning included; before the template's.",
    "maxThinkingTokens": "How much the model may reason: none at 0, little to 2,048, some to "
    "8,192, else much. Vendors know no exact budget any more.",
    "maxToolCalls": "Accepted; there are no tools whose calls it could limit.",
    "responseSchema": "A JSON Schema that the answer has to keep, before the template's.",
    "vendorTools": "Refused unless empty.",
    "nonce": "Accepted; no answer is ever cached.",
    "logLevel": "Accepted; every call of a run is shown in any case.",
    "customerId": "Kept as `metadata.customerId`; the header `X-Shuttle-Customer-Id` goes first.",
    "priority": "The lane it waits in; `onsite` when left out.",
}
INFERENCE: Mapping[str, str] = {
    **{
        name: REQUEST[name]
        for name in (
            "tags",
            "temperature",
            "maxTokens",
            "maxThinkingTokens",
            "responseSchema",
            "nonce",
            "logLevel",
            "customerId",
            "priority",
        )
    },
    "messages": "What is said: `role` is `client`, `assistant` or `system`.",
    "model": "With its provider: `openai/gpt-5-mini`.",
    "environment": "Whose keys are used; the default one's when left out.",
    "isDebug": "Accepted; every call is shown in any case.",
    "seed": "Refused unless 0.",
    "topP": "From 0 to 1.",
    "topK": "Refused.",
}
REQUESTS: dict[str, Any] = {
    "runFlow": _ASKED,
    "runInference": {"model": "sim/echo", "messages": [{"role": "client", "text": "Hello"}]},
}
OF_SCHEMA: dict[tuple[str, str], Any] = {
    ("FlowAnswer", "flowRequest"): dict.fromkeys(REQUEST) | _ASKED,
    ("FlowAnswer", "requests"): [_FIRST],
    ("FlowAnswer", "responses"): [_ANSWER],
    ("FlowAnswer", "creditsUsed"): 6,
    ("FlowAnswer", "creditsLeft"): None,
    ("FlowAnswer", "milliseconds"): 14,
    ("FlowAnswer", "timestamp"): _MOMENT,
    ("FlowAnswer", "status"): "succeeded",
    ("FlowAnswer", "userId"): None,
    ("FlowAnswer", "usage"): _TOKENS
    | {"tokensCached": 0, "tokensCacheWrite": 0, "tokensReasoning": 0}
    | {"costUsd": 0.0000066, "creditsUsed": 6, "creditsLeft": None},
    ("InferenceAnswer", "creditsLeft"): None,
    ("InferenceAnswer", "creditsUsed"): 6,
    ("InferenceAnswer", "llmCostCredits"): 6,
    ("InferenceAnswer", "milliseconds"): 14,
    ("InferenceAnswer", "status"): "succeeded",
    ("InferencePair", "contextId"): None,
    ("InferencePair", "request"): _FIRST,
    ("InferenceResponse", "usage"): _ANSWER["usage"],
    ("InferenceResult", "usage"): _ANSWER["usage"],
    ("InferenceResponse", "textResponse"): _SAID,
    ("InferenceResponse", "userId"): None,
    ("FlowParameter", "token"): "signature",
    ("ParameterTemplate", "idCreated"): _MOMENT,
    ("ParameterTemplate", "key"): "signature",
    ("ParameterTemplate", "name"): "signature",
    ("ParameterTemplate", "template"): "Yours, [[sender]]",
    ("ParameterTemplate", "language"): None,
    ("ParameterTemplate", "llm"): None,
}
HEADERS: tuple[tuple[str, str], ...] = (
    ("X-Shuttle-Customer-Id", "Whom the run is for; before the body's `customerId`."),
    ("X-Shuttle-Debug-Url", "Kept as `metadata.debugUrl`."),
)
ANSWERS: dict[str, dict[int, Any]] = {
    "runFlow": {200: FlowAnswer},
    "readFlowRun": {200: FlowAnswer},
    "listParameters": {200: list[FlowParameter]},
    "runInference": {200: InferenceAnswer},
}
