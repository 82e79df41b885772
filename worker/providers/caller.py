"""Calling a vendor: the SDK says where and with which headers, our transport sends."""

from collections.abc import Mapping
from typing import Any, Protocol

from shared.clock import Clock
from shared.deps import Recent
from shared.domain.completions import CompletionRequest
from worker.providers import wire
from worker.providers.transport import Answer, HttpClient

_NO_KEY = "none"


class Sdk(Protocol):
    """What is used of a vendor's SDK client."""

    @property
    def base_url(self) -> Any: ...
    @property
    def default_headers(self) -> Mapping[str, Any]: ...
    @property
    def auth_headers(self) -> Mapping[str, str]: ...
    def with_options(self, *, api_key: str) -> "Sdk": ...
    async def close(self) -> None: ...


class Caller:
    """Posts to one address of one vendor; each call brings its own key."""

    def __init__(
        self,
        sdk: Any,
        path: str,
        *,
        http_client: HttpClient,
        clock: Clock,
        key_header: str | None = None,
    ) -> None:
        """`key_header` is for servers that want the key alone, in a header of this name."""
        self._sdk: Sdk = sdk
        self._http = http_client
        self._clock = clock
        self._key_header = key_header
        self._url = f"{str(sdk.base_url).rstrip('/')}/{path}"
        self._headers: Recent[str, dict[str, str]] = Recent(1_000)

    async def post(self, request: CompletionRequest, body: bytes) -> Answer:
        """Send once. Raises `ProviderError` for an error answer and for none at all."""
        answer = await self._http.post(
            self._url,
            headers=self._headers_of(request.api_key) | wire.call_headers(request),
            body=body,
            timeout_s=request.timeout_s,
        )
        if answer.is_error:
            raise wire.from_status(
                answer.status, answer.body, answer.headers, request, self._clock.now()
            )
        return answer

    async def aclose(self) -> None:
        await self._http.aclose()
        await self._sdk.close()

    def _headers_of(self, api_key: str) -> dict[str, str]:
        """The SDK's own headers and authentication, put together once for each key."""
        headers = self._headers.get(api_key)
        if headers is None:
            keyed = self._sdk.with_options(api_key=api_key or _NO_KEY)
            auth = {self._key_header: api_key} if self._key_header else keyed.auth_headers
            headers = wire.sdk_headers(keyed.default_headers, auth if api_key else {})
            self._headers.put(api_key, headers)
        return headers
