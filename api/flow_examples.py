"""Examples of flows, pins, promotions and models; the rest stands in `api.examples`."""

from collections.abc import Mapping
from typing import Any

_VERSION = "019ab3c4-5d6e-7f80-9a1b-2c3d4e5f6073"
_TEMPLATES = [
    {
        "name": "main",
        "template": "You greet people in one short sentence. [[style]]",
        "userTemplate": "Say hello to [[name]].",
        "llm": "sim/echo",
    },
    {"name": "style", "template": "Be kind."},
]
_ABSENT: dict[str, Any] = {
    "description": None,
    "userTemplate": None,
    "llm": None,
    "temperature": None,
    "fallbacks": [],
    "responseSchema": None,
    "toolIds": [],
    "maxToolCalls": None,
    "messages": None,
}

REQUESTS: Mapping[str, Any] = {
    "putPin": {"version": 3, "comment": "Shorter greetings"},
    "createFlow": {"title": "Greeting"},
    "addFlowVersion": {"templates": _TEMPLATES},
    "replaceFlowVersion": {"templates": _TEMPLATES},
    "activateFlowVersion": {"environment": "production", "comment": "Shorter greetings"},
    "promoteEnvironment": {
        "sourceEnvironment": "staging",
        "targetEnvironment": "production",
        "comment": "Release 42",
    },
    "putAlias": {
        "models": ["openai/gpt-5-mini", "anthropic/claude-sonnet-4-5"],
        "strategy": "Sequential",
        "description": "Good enough for most",
    },
}

OF_SCHEMA: Mapping[tuple[str, str], Any] = {
    **{
        (view, "templates"): [{**_ABSENT, **template} for template in _TEMPLATES]
        for view in ("WholeFlowVersion", "FlowVersion")
    },
    **{(view, "environments"): ["production"] for view in ("FlowVersionView", "WholeFlowVersion")},
    ("Flow", "activeVersions"): {"production": _VERSION},
    ("Flow", "mode"): "Direct",
    ("Flow", "title"): "Greeting",
    ("Difference", "title"): "Greeting",
    ("Difference", "targetVersion"): 2,
    ("Pin", "prompt"): "greeting",
    ("PinChange", "keyName"): "backend",
    ("PinChange", "source"): "staging",
    ("Promotion", "sourceEnvironment"): "staging",
    ("PromotionView", "sourceEnvironment"): "staging",
    ("PromotionView", "targetEnvironment"): "production",
    ("PromotionView", "comment"): "Release 42",
    ("AliasView", "alias"): "quick",
    ("AliasView", "models"): ["openai/gpt-5-mini", "anthropic/claude-sonnet-4-5"],
    ("AliasView", "strategy"): "Sequential",
    ("AliasView", "weights"): None,
    ("AliasView", "description"): "Good enough for most",
    ("Model", "id"): "anthropic/claude-sonnet-4-5",
    ("Model", "provider"): "anthropic",
    ("Model", "model"): "claude-sonnet-4-5",
    ("Model", "name"): "Claude Sonnet 4.5",
    ("Model", "contextWindow"): 200_000,
    ("Model", "prices"): {"input": 3, "cachedInput": 0.3, "cacheWrite": 3.75, "output": 15},
}
