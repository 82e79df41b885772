"""The words of the audit: what can be done to a workspace, and to what kind of thing."""

from collections.abc import Mapping
from enum import StrEnum


class Action(StrEnum):
    """What was done. The names are stable; `MEANINGS` says them in a sentence."""

    PROMPT_CREATED = "prompt.created"
    PROMPT_CHANGED = "prompt.changed"
    PROMPT_DELETED = "prompt.deleted"
    VERSION_CREATED = "version.created"
    VERSION_PUBLISHED = "version.published"
    VERSION_REPLACED = "version.replaced"
    VERSION_DELETED = "version.deleted"
    TAG_MOVED = "tag.moved"
    TAG_REMOVED = "tag.removed"
    ALIAS_SET = "alias.set"
    ALIAS_REMOVED = "alias.removed"
    PIN_MOVED = "pin.moved"
    PIN_REMOVED = "pin.removed"
    ENVIRONMENT_PROMOTED = "environment.promoted"
    ENVIRONMENT_CREATED = "environment.created"
    ENVIRONMENT_CHANGED = "environment.changed"
    ENVIRONMENT_CLOSED = "environment.closed"
    ENVIRONMENT_DELETED = "environment.deleted"
    VARIABLE_SET = "variable.set"
    VARIABLE_DELETED = "variable.deleted"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_CHANGED = "webhook.changed"
    WEBHOOK_DELETED = "webhook.deleted"
    WEBHOOK_ENABLED = "webhook.enabled"
    WEBHOOK_TESTED = "webhook.tested"
    WEBHOOK_RECOVERED = "webhook.recovered"
    WEBHOOK_SECRET_READ = "webhook.secret_read"  # noqa: S105 (a name, no secret)
    WEBHOOK_SECRET_ROTATED = "webhook.secret_rotated"  # noqa: S105
    DELIVERY_RESENT = "delivery.resent"
    BUDGET_SET = "budget.set"
    BUDGET_DELETED = "budget.deleted"
    THREAD_DELETED = "thread.deleted"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    WORKSPACE_CREATED = "workspace.created"
    WORKSPACE_METERED = "workspace.metered"
    WORKSPACE_UNMETERED = "workspace.unmetered"
    WORKSPACE_CAPPED = "workspace.capped"
    CREDITS_GRANTED = "credits.granted"
    WORKSPACE_RETAINED = "workspace.retained"
    CREDITS_SETTLED = "credits.settled"
    LANE_PAUSED = "lane.paused"
    LANE_RESUMED = "lane.resumed"
    SECRETS_ROTATED = "secrets.rotated"


MEANINGS: Mapping[Action, str] = {
    Action.PROMPT_CREATED: "A prompt was added.",
    Action.PROMPT_CHANGED: "A prompt was renamed or described; `fields` names what differs.",
    Action.PROMPT_DELETED: "A prompt was hidden.",
    Action.VERSION_CREATED: "A version was added, `published` at once or as a draft.",
    Action.VERSION_PUBLISHED: "A draft became reachable, and immutable.",
    Action.VERSION_REPLACED: "A draft was given another body.",
    Action.VERSION_DELETED: "A version that nothing used was deleted.",
    Action.TAG_MOVED: "A tag was pointed at a version: `from` which number `to` which.",
    Action.TAG_REMOVED: "A tag was taken away from the version `from`.",
    Action.ALIAS_SET: "A name was made to stand for these `models`.",
    Action.ALIAS_REMOVED: "A name no longer stands for models.",
    Action.PIN_MOVED: "An environment was given a version to run: `from` which number `to` which.",
    Action.PIN_REMOVED: "An environment no longer has a version of its own: `from` which.",
    Action.ENVIRONMENT_PROMOTED: "The pins of the environment `source` were copied to it: so many "
    "`moved`; the history of each pin names it.",
    Action.ENVIRONMENT_CREATED: "An environment was added.",
    Action.ENVIRONMENT_CHANGED: "It was renamed, made the default, or keeps or takes another "
    "amount; `fields` names what differs.",
    Action.ENVIRONMENT_CLOSED: "Its forced deletion began: it takes no runs, and those it had are "
    "canceled.",
    Action.ENVIRONMENT_DELETED: "An environment was deleted, and its variables destroyed.",
    Action.VARIABLE_SET: "A variable was set or replaced.",
    Action.VARIABLE_DELETED: "A variable was destroyed.",
    Action.WEBHOOK_CREATED: "An endpoint was added.",
    Action.WEBHOOK_CHANGED: "An endpoint was changed; `fields` names what differs.",
    Action.WEBHOOK_DELETED: "An endpoint was deleted.",
    Action.WEBHOOK_ENABLED: "An endpoint takes deliveries again.",
    Action.WEBHOOK_TESTED: "An endpoint was sent a `ping`.",
    Action.WEBHOOK_RECOVERED: "What an endpoint missed `since` a moment was made pending again.",
    Action.WEBHOOK_SECRET_READ: "A signing secret was shown.",
    Action.WEBHOOK_SECRET_ROTATED: "An endpoint got a new secret; the old ones sign along for "
    "`overlapSeconds`.",
    Action.DELIVERY_RESENT: "A delivery was sent again by hand.",
    Action.BUDGET_SET: "What an environment or a key may spend: `day` and `month`, in credits.",
    Action.BUDGET_DELETED: "An environment or a key may spend what there is.",
    Action.THREAD_DELETED: "What a thread remembered was erased.",
    Action.KEY_CREATED: "An API key with these `scopes` was made.",
    Action.KEY_REVOKED: "An API key was revoked.",
    Action.WORKSPACE_CREATED: "The operator made the workspace.",
    Action.WORKSPACE_METERED: "The operator lets the workspace pay for its runs.",
    Action.WORKSPACE_UNMETERED: "The operator lets its runs go unpaid.",
    Action.WORKSPACE_CAPPED: "The operator set what one run may cost, `credits`; null is no cap.",
    Action.CREDITS_GRANTED: "The operator gave `credits`, or took them, with a `comment`.",
    Action.WORKSPACE_RETAINED: "The operator said how long its contents and runs stay.",
    Action.CREDITS_SETTLED: "The operator settled `calls` of which nobody knew the cost.",
    Action.LANE_PAUSED: "The operator paused a lane, for every workspace.",
    Action.LANE_RESUMED: "The operator let a lane go on.",
    Action.SECRETS_ROTATED: "The operator sealed secrets anew, under the master key `to`.",
}
