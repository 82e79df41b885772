"""Previews: what a submission would lead to."""

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK

from api import answers
from api.auth import SCOPE
from shared.deps import Deps
from shared.domain.submissions import Submission
from shared.services import previews
from shared.services.keys import Principal


@post(
    "/prompts/{slug:str}/{version:str}/preview",
    status_code=HTTP_200_OK,
    opt={SCOPE: "prompts:read"},
    summary="Preview a run",
)
async def preview_run(
    slug: FromPath[str],
    version: FromPath[str],
    data: JSONBody[Submission],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
) -> Response[bytes]:
    """Say what a submission of this body would lead to; nothing is called, charged or stored.

    What keeps a submission from being accepted keeps it from being previewed, but for missing
    inputs: those are part of the answer. A draft can be previewed by its number or id with the
    scope `prompts:write`. Where the version reads its thread and the body names one, the messages
    hold the thread's history, which takes the scope `runs:write`.
    """
    found = await previews.preview(deps, principal, slug, version, data)
    return answers.document(found)


HANDLERS = [preview_run]
