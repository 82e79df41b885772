"""A model called directly, through the same queue as everything else."""

from typing import Any

import msgspec
from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.status_codes import HTTP_200_OK

from api import answers, flow_waits, submitting
from api.auth import SCOPE
from api.rates import COUNTS, Counts
from api.waiters import Waiters
from shared.deps import Deps
from shared.domain.inference import InferenceRequest
from shared.domain.submissions import Submission
from shared.services import inference
from shared.services.keys import Principal


@post(
    "/inference",
    status_code=HTTP_200_OK,
    opt={SCOPE: "runs:write", COUNTS: Counts.SUBMISSION},
    summary="Call a model",
)
async def run_inference(
    data: JSONBody[InferenceRequest],
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    waiters: NamedDependency[Waiters],
) -> Response[bytes]:
    """Call a model without a prompt, wait for its answer, and show both.

    It is a run like that of a flow, with the same waiting, the same retries and the same errors;
    `GET /runs/{runId}` shows it with its attempts.
    """
    customer = flow_waits.customer(request)
    body = data if customer is None else msgspec.structs.replace(data, customer_id=customer)
    debug_url = flow_waits.debug_url(request)
    with flow_waits.place(waiters) as waiter:
        wanted = flow_waits.heard(
            submitting.request(request, Submission(inputs={}), "", ""), waiter
        )
        accepted = await inference.submit(deps, principal, body, wanted, debug_url)
        with flow_waits.accepted_already(accepted):
            await flow_waits.until_over(request, waiter, accepted, deps)
            found = await inference.answer(deps, principal, accepted.id)
    return answers.document(found, headers=flow_waits.headers(accepted))


HANDLERS = [run_inference]
