"""The ways usage can be added up."""

from datetime import timedelta
from enum import StrEnum

DEFAULT_SPAN = timedelta(days=30)
MAX_SPAN = timedelta(days=366)


class GroupBy(StrEnum):
    """What makes a group: a tag is one of a run's own `tags`, a day is one of UTC."""

    DAY = "day"
    PROMPT = "prompt"
    VERSION = "version"
    ENVIRONMENT = "environment"
    MODEL = "model"
    KEY = "key"
    TAG = "tag"
