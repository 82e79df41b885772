"""A model called directly, through the same queue as everything else."""

from typing import Any

from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.status_codes import HTTP_200_OK

from api import flow_waits
from api.auth import SCOPE
from api.rates import COUNTS, Counts
from api.waiters import Waiters
from shared.deps import Deps
from shared.domain.inference import InferenceRequest
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
    body, debug_url = flow_waits.for_customer(request, data), flow_waits.debug_url(request)
    return await flow_waits.answered(
        request,
        waiters,
        deps,
        "",
        submit=lambda wanted: inference.submit(deps, principal, body, wanted, debug_url),
        answer=lambda run_id: inference.answer(deps, principal, run_id),
    )


HANDLERS = [run_inference]
