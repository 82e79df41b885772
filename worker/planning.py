"""What a call needs: the rendered messages, the provider, the credential."""

import hashlib
from collections.abc import Callable, Mapping
from uuid import UUID

import msgspec

from shared.deps import Deps, Recent
from shared.domain import calls, flow_runs, versions
from shared.domain.completions import Message, ModelParams, RunParams
from shared.domain.formats import ResponseFormat
from shared.domain.history import History
from shared.domain.models import ModelName
from shared.domain.schemas import SchemaError
from shared.domain.states import ErrorOrigin
from shared.domain.templates import TemplateError
from shared.domain.tools import EmitTool
from shared.domain.versions import CompiledVersion, TemplateBody
from shared.ids import VersionId
from shared.store import history, reading
from shared.store.claiming import ClaimedRun
from shared.vault import VaultError
from worker import chain
from worker.breaker import Key as Circuit
from worker.checks import Checks
from worker.patience import patiently
from worker.providers.base import Provider
from worker.providers.registry import Providers

_inputs = msgspec.json.Decoder(dict[str, str])
_params = msgspec.json.Decoder(RunParams)
_messages = msgspec.json.Decoder(tuple[Message, ...])
_Asked = tuple[VersionId, ResponseFormat, tuple[EmitTool, ...]]


class Access(msgspec.Struct, frozen=True):
    """The way to a model: who serves it, and the key to it."""

    provider: Provider
    model: ModelName
    api_key: str

    @property
    def circuit(self) -> Circuit:
        """Which breaker guards this way; the key itself stays out of it."""
        digest = hashlib.sha256(self.api_key.encode()).hexdigest()[:16]
        return (self.model.provider, digest, self.model.model)


class Plan(msgspec.Struct, frozen=True):
    """Everything a call needs; `models` are all that the run may call."""

    access: Access
    models: tuple[str, ...]
    messages: tuple[Message, ...]
    own: tuple[Message, ...]
    history_from: int | None
    params: ModelParams
    template: TemplateBody
    checks: Checks

    @property
    def model(self) -> ModelName:
        return self.access.model


class Wait(msgspec.Struct, frozen=True):
    """Every model that the run may call is to be left alone for so long."""

    wait_s: float


class GiveUpError(Exception):
    """The run cannot be called at all; `args` are code, message, origin."""


class Planner:
    """Turns claimed runs into plans; remembers the variables of environments."""

    def __init__(self, deps: Deps, providers: Providers) -> None:
        self._deps = deps
        self._providers = providers
        self._variables: Recent[UUID, tuple[int, Mapping[str, bytes]]] = Recent(1_000)
        self._checks: Recent[_Asked, Checks] = Recent(1_000)

    async def plan(self, run: ClaimedRun, wait_s: Callable[[Circuit], float]) -> Plan | Wait:
        """Choose the model, and put together what its call needs.

        `wait_s` says how long a breaker is still open. Models whose breaker is open are passed
        over, and so are fallbacks nobody here has a key for; where that leaves none, the run waits
        for the first that may be probed. Raises `GiveUpError`.
        """
        compiled, said_beside = await self._compiled(run)
        own = (*_render(compiled, _inputs.decode(run.inputs)), *said_beside)
        template, waits, unusable = compiled.settings, [], None
        checks = self._checks_of(run, template)
        history_from, said = await self._history(run, template.history)
        models = chain.models_of(run, template)
        for name in chain.standing(run, models):
            try:
                access = await self._access(run, ModelName(*name.split("/", 1)))
            except GiveUpError as error:
                if name == models[0]:
                    raise
                unusable = unusable or error
                continue
            if wait := wait_s(access.circuit):
                waits.append(wait)
                continue
            overrides = None if run.params is None else _params.decode(run.params)
            return Plan(
                access=access,
                models=models,
                messages=(*calls.with_history(own, said), *_correction(run, template)),
                own=own,
                history_from=history_from,
                params=calls.params_of(template, overrides),
                template=template,
                checks=checks,
            )
        if not waits and unusable is not None:
            raise unusable
        return Wait(min(waits))

    async def _compiled(self, run: ClaimedRun) -> tuple[CompiledVersion, tuple[Message, ...]]:
        """The version as the run wants it, and the messages that go behind its own."""
        if run.flow is None:
            return await patiently(lambda: self._deps.compiled(run.version_id)), ()
        part = flow_runs.read_part(run.flow)
        compiled = await patiently(
            lambda: self._deps.compiled(run.version_id, entrypoint=part.entrypoint)
        )
        return flow_runs.with_format(compiled, part), part.messages

    def _checks_of(self, run: ClaimedRun, template: TemplateBody) -> Checks:
        """What the answer is held against; compiled once for a version and what is asked of it."""
        key = (run.version_id, template.response_format, template.tools)
        checks = self._checks.get(key)
        if checks is None:
            try:
                checks = Checks(template)
            except SchemaError as error:
                text, origin = str(error), ErrorOrigin.TEMPLATE
                raise GiveUpError("response_format_invalid", text, origin) from error
            self._checks.put(key, checks)
        return checks

    async def _access(self, run: ClaimedRun, model: ModelName) -> Access:
        provider = await self._providers.get(model.provider)
        if provider is None:
            raise GiveUpError(
                "unknown_provider",
                f"This server has no provider '{model.provider}'.",
                ErrorOrigin.TEMPLATE,
            )
        variable = self._deps.settings.key_variable(model.provider)
        key = "" if variable is None else await self._api_key(run, model.provider, variable)
        return Access(provider, model, key)

    async def _history(
        self, run: ClaimedRun, limits: History
    ) -> tuple[int | None, tuple[Message, ...]]:
        """What the run is told of its thread, and the turn that begins with."""
        if not run.history_read:
            return None, ()
        first, stored = await patiently(lambda: history.before(self._deps.store, run.id, limits))
        return first, _messages.decode(stored)

    async def _api_key(self, run: ClaimedRun, provider: str, name: str) -> str:
        """The run's own variable, else its environment's, else the server's where allowed."""
        vault = self._deps.vault
        try:
            if run.env_vars is not None:
                place = ("runs", "env_vars", run.id, run.workspace_id)
                given = _inputs.decode(vault.open(run.env_vars, *place))
                if given.get(name):
                    return given[name]
            sealed = (await self._variables_of(run)).get(name)
            if sealed is not None:
                where = ("environment_variables", name, run.environment_id, run.workspace_id)
                return vault.open(sealed, *where).decode()
        except VaultError as error:
            raise GiveUpError("secret_unreadable", str(error), ErrorOrigin.PLATFORM) from error
        if run.server_credentials and (key := self._deps.settings.server_key(provider)):
            return key
        raise GiveUpError(
            "missing_credentials",
            f"No {name}: set it as a variable of the environment, or give it in envVars.",
            ErrorOrigin.CALLER,
        )

    async def _variables_of(self, run: ClaimedRun) -> Mapping[str, bytes]:
        known = self._variables.get(run.environment_id)
        if known is None or known[0] != run.variables_version:
            found = await patiently(lambda: reading.variables(self._deps.store, run.environment_id))
            known = (run.variables_version, found)
            self._variables.put(run.environment_id, known)
        return known[1]


def _render(compiled: CompiledVersion, inputs: Mapping[str, str]) -> tuple[Message, ...]:
    try:
        return versions.render_messages(compiled, inputs)
    except TemplateError as error:
        raise GiveUpError(error.code, error.detail, ErrorOrigin.TEMPLATE) from error


def _correction(run: ClaimedRun, template: TemplateBody) -> tuple[Message, ...]:
    """What a vendor is told when its answer was not what the template wants."""
    if run.tried is None or (miss := chain.miss_of(run)) is None:
        return ()
    return calls.correction(*miss, with_tools=bool(template.tools))
