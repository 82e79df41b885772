"""Is the process alive, and is it ready for requests? No key needed."""

from typing import Any

import psycopg
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.status_codes import HTTP_200_OK, HTTP_503_SERVICE_UNAVAILABLE

from shared.deps import Deps
from shared.services import readiness


@get("/livez", include_in_schema=False)
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@get("/readyz", include_in_schema=False)
async def readyz(deps: NamedDependency[Deps]) -> Response[dict[str, Any]]:
    """Ready when the database answers with the right schema; without Redis it is degraded."""
    try:
        report = await readiness.check(deps)
    except psycopg.Error:
        report = readiness.Report(status="unready", database="away", redis="unknown")
    ready = report.status in readiness.READY
    return Response(
        {"status": report.status, "database": report.database, "redis": report.redis},
        status_code=HTTP_200_OK if ready else HTTP_503_SERVICE_UNAVAILABLE,
    )


HANDLERS = [livez, readyz]
