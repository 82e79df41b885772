"""The seam between runs and vendors: what every provider can do."""

from typing import Protocol

from shared.domain.completions import Completion, CompletionRequest


class Provider(Protocol):
    """One vendor's API, or one that speaks like it. Implementations never retry by themselves."""

    @property
    def name(self) -> str:
        """The part before the slash in `openai/gpt-5-mini`."""
        ...

    async def complete(self, request: CompletionRequest) -> Completion:
        """Make exactly one call, at most `request.timeout_s` long.

        Raises `ProviderError` for every failure. Cancelling closes the connection.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections; the provider is of no use afterwards."""
        ...
