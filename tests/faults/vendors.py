"""The fake vendors of the rig: what a call gets is in the model's name, attempt by attempt."""

from datetime import timedelta
from email.utils import format_datetime

from shared.clock import SystemClock
from tests import vendors
from tests.vendors import Step, VendorServer, answers, fails

THEN = "-then-"
PRICED = "gpt-5-nano-"  # whatever begins like this has a price
MODEL = f"openai/{PRICED}mock-"
NO_QUOTA = fails(429, code="insufficient_quota", message="You exceeded your current quota.")


def model_of(*steps: str) -> str:
    """A model's name whose first call gets the first step, and so on; the last one repeats."""
    return MODEL + THEN.join(steps)


def step_of(model: str, number: int) -> str:
    """The step's name for a run's call, counted from one."""
    names = model.removeprefix(PRICED).removeprefix("mock-").split(THEN)
    return names[min(number, len(names)) - 1]


class ScriptedVendors(VendorServer):
    """`mock-500-then-answer` fails once and then answers; `slow-N` answers after N milliseconds.

    `429-on-N` names a date N seconds ahead, `quota` is an account that has spent everything.
    """

    def _next_step(self, run_id: str, model: str) -> Step:
        if not model.removeprefix(PRICED).startswith("mock-"):
            return super()._next_step(run_id, model)
        name = step_of(model, 1 + len(self.calls_of(run_id)))
        if name.startswith("slow-"):
            return answers(delay_s=int(name.removeprefix("slow-")) / 1000, name=name)
        if name.startswith("429-on-"):
            date = SystemClock().now() + timedelta(seconds=int(name.removeprefix("429-on-")))
            return fails(429, retry_after=format_datetime(date, usegmt=True))
        if name == "quota":
            return NO_QUOTA
        return vendors.named(name)
