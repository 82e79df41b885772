"""What request fields and parameters mean, for the documentation: types alone do not say it."""

from collections.abc import Mapping

from api import flow_wording

PARAMETERS: Mapping[str, str] = {
    "alias": "The alias: one word of letters, digits, `_`, `.` and `-`.",
    "a": "The version before: its number (a draft's too), a tag, `__latest__` or its id.",
    "b": "The version after, named likewise.",
    "edition": "The version's number or id.",
    "flow": "The flow's slug, one it once had, or its id.",
    "delivery_id": "The delivery's id.",
    "key": "The variable's name: a capital letter, then capitals, digits and underscores.",
    "key_id": "The key's id.",
    "metadata": "`metadata[key]=value`: runs whose metadata has that value under that key.",
    "name": "The environment's name, in any spelling of its letters.",
    "number": "The version's number.",
    "run_id": "The run's id.",
    "slug": "The prompt's slug, one it once had, or its id.",
    "thread_id": "The thread's id.",
    "tag": "The tag's name.",
    "version": "A published version: its number, a tag, its id, `__latest__` (published last) or "
    "`__pinned__` (what the environment pins, else what the default one does).",
    "webhook_id": "The webhook's id.",
}

_WEBHOOK: Mapping[str, str] = {
    "url": "Where events are posted to: https, on a public address.",
    "environments": "Names of environments; none mean all.",
    "events": "Names of events; none mean all.",
    "format": "`standard` (Standard Webhooks) or `promptjuggler`.",
    "headers": "Fields sent along with each delivery; kept encrypted.",
    "includeOutput": "Whether events carry the run's output; true when left out.",
}
_PARAMS: Mapping[str, str] = {
    "maxCompletionTokens": "At least 1.",
    "temperature": "From 0 to 2.",
    "topP": "From 0 to 1.",
    "sim": "For `sim` models only: `delaySeconds` and `outputTokens`.",
}
_TEMPLATE: Mapping[str, str] = {
    "text": "A text for other templates to include, instead of messages and a model.",
    "provider": "Who serves the model, such as `openai`, where `model` does not say it.",
    "description": "What it is for; never sent to a model.",
    "model": "With its provider (`openai/gpt-5-mini`) or without, or an alias of the workspace.",
    "systemInstruction": "The system message.",
    "messages": "What is sent, with tokens such as `{{ name }}`.",
    "responseFormat": "`text`, `json_object`, or `json_schema` with the schema as a string.",
    "memory": "Whether a run reads and writes the messages of its thread.",
    "history": "How much of the thread a run reads: its newest turns within `maxTurns` and "
    "`maxTokens` (estimated), and within 1 MiB whatever this says.",
    "timeoutSeconds": "How long one provider call may take.",
}
_DRAFT: Mapping[str, str] = {
    "syntax": "How tokens are written: `{{ name }}` (braces) or `[[name]]` (brackets).",
}
_LONG: Mapping[str, str] = {
    "entrypoint": "The template that a run starts from.",
    "templates": "Templates by name; they include each other by name.",
    **_DRAFT,
}
_VERSION: Mapping[str, str] = {
    "publish": "`false` keeps a draft.",
}

_SUBMISSION: Mapping[str, str] = {
    "inputs": "A value for each token of the prompt.",
    "thread": "The conversation the run belongs to; an unknown id begins one.",
    "priority": "The lane it waits in; `normal` when left out.",
    "environment": "The environment's name; the default one when left out.",
    "envVars": "Variables for this run alone, such as API keys: kept encrypted, never shown, "
    "erased when the run ends. At most 50, 64 KiB in all.",
    "metadata": "Yours to keep with the run: strings, or lists of strings.",
    "channel": "A lane of memory within the thread; `default` when left out.",
    "model": "Another model than the version's, or an alias of the workspace.",
    "params": "Model parameters that go before the version's.",
    "tags": "Labels of the run, at most 10.",
    "runAt": "Not before this moment, at most 366 days ahead.",
    "expiresIn": "Seconds it may wait in the queue; then it ends as `expired`.",
    "deadline": "The moment by which it has to be done; then it ends as `failed`.",
    "maxDuration": "Seconds from its first start; then it ends as `failed`.",
    "maxRequestCostCredits": "Credits the run may cost; it fails before a call that might cost "
    "more. The workspace's own cap holds beside it.",
    "maxAttempts": "Provider calls it may make; 3 when left out.",
    "onUnknownOutcome": "When nobody can say whether a provider carried a call out: call "
    "again (`retry`, what happens when left out), or end as `failed` (`fail`).",
}

_KEEPS: Mapping[str, str] = {
    "retention": "How long contents and runs stay after a run's end; `none` is short for "
    "`contentsDays` 0. Given, it replaces the whole of what was set.",
    "limits": "How many runs may wait and run. Given, it replaces the whole of what was set.",
}

FIELDS: Mapping[str, Mapping[str, str]] = {
    "Activation": {"comment": "Kept in the pin's history."},
    "FlowTemplate": {
        "name": "By which `[[name]]` includes it, and a run may start from it.",
        "description": "What it is for; never sent to a model.",
        "template": "The system message, with tokens such as `[[name]]`.",
        "userTemplate": "The user's message behind it.",
        "llm": "A model with its provider (`openai/gpt-5-mini`), or an alias of the workspace.",
        "temperature": "From 0 to 2.",
        "fallbacks": "Models to call where the first fails.",
        "responseSchema": "The JSON Schema that an answer has to keep to.",
        "toolIds": "Not built: empty or left out.",
        "maxToolCalls": "Not built: left out.",
    },
    "FlowVersion": {
        "templates": "At most 200; an empty entrypoint when left out.",
        "entrypoint": "The template that a run starts from.",
        "mode": "`Direct`; `Route` is not built.",
    },
    "NewFlow": {"title": "What people call it; the slug is made from it."},
    "Promotion": {
        "flowIds": "Slugs or ids; every flow that the source pins when left out.",
        "comment": "Kept in the history of each pin.",
    },
    "Alias": {
        "models": "1 to 10 of them, each with its provider; an alias cannot stand here.",
        "strategy": "`Sequential` calls the first, and the next where one fails. The others choose "
        "one for each run: by chance, by `weights`, or in turn.",
        "weights": "For `WeightedRandom`: one number for each model, in their order.",
    },
    "FlowRequest": flow_wording.REQUEST,
    "InferenceRequest": flow_wording.INFERENCE,
    "Batch": {"runs": "1 to 1,000 of them; all are accepted, or none."},
    "BatchItem": {
        **_SUBMISSION,
        "prompt": "The prompt's slug.",
        "version": PARAMETERS["version"],
        "idempotencyKey": "Like the header `Idempotency-Key` of a single submission.",
    },
    "EnvironmentChange": {"isDefault": "`true` takes over from the present default.", **_KEEPS},
    "LongDraft": _LONG,
    "LongVersion": {**_LONG, **_VERSION},
    "ModelParams": _PARAMS,
    "Limits": {
        "queuedRuns": "Beyond so many waiting ones no run is taken: 403 `quota_exceeded`. Where "
        "the server allows fewer, that counts.",
        "runningRuns": "So many run at once; others wait, `statusReason` `backlog`.",
    },
    "NewEnvironment": {
        "isDefault": "The first environment is the default whatever this says.",
        **_KEEPS,
    },
    "NewKey": {
        "scopes": "What the key may do; `…:write` includes `…:read`, `admin` is all of them.",
        "environments": "Names of environments the key is limited to; none mean all.",
        "expiresAt": "From this moment on the key is refused.",
    },
    "NewPin": {
        "version": "A version's number or id; a draft is published by this.",
        "comment": "Kept in the pin's history.",
    },
    "NewPrompt": {"slug": "Its address from now on; made from the name when left out."},
    "NewTag": {
        "version": "A published version's number or id.",
        "comment": "Kept in the tag's history.",
    },
    "NewWebhook": {
        **_WEBHOOK,
        "secret": "`whsec_` and 24 to 64 bytes as base64; made when left out.",
    },
    "Change": {
        "pointer": "Where, as an RFC 6901 pointer into the body in its long form.",
        "before": "Null where nothing was.",
        "after": "Null where nothing is left.",
        "diff": "For texts that are there on both sides: a unified diff.",
    },
    "PromptChange": {"slug": "The new slug; the old one goes on working."},
    "Replay": {
        "version": "`same` (when left out), or `current`: what its tag or pin, else the latest, "
        "is now.",
        "envVars": "Given again: the old run's were erased when it ended.",
    },
    "Retention": {
        "contentsDays": "Then inputs, messages and output are erased: of the run, its events, its "
        "thread. 0: as soon as its webhooks are delivered or given up.",
        "runsDays": "Then the run is deleted with all that belongs to it.",
    },
    "Rollback": {"comment": "Kept in the tag's history."},
    "Rotation": {
        "overlapSeconds": "For so long the old secret signs along, at most 7 days; a day when left "
        "out, `0` ends it at once.",
    },
    "ShortDraft": {**_TEMPLATE, **_DRAFT},
    "ShortVersion": {**_TEMPLATE, **_DRAFT, **_VERSION},
    "Submission": _SUBMISSION,
    "TemplateBody": _TEMPLATE,
    "WebhookChange": _WEBHOOK,
    "Window": {
        "since": "Events from this moment on, at most 14 days back.",
        "until": "Events up to this moment; all when left out.",
    },
}
