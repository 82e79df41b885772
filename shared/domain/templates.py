"""Logic-less templates: tokens, includes and literal text, all in linear time.

A token is the opener of the version's syntax, optional spaces, a name, optional spaces, the
closer. A caller's value resolves it, else the template of that name in the same version, else it
is missing. Values are never expanded again, so no input can ask for another one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from shared.errors import UnacceptableError

MAX_SOURCE_BYTES = 256 * 1024
MAX_TOKENS = 200
MAX_DEPTH = 16
MAX_RENDERED_BYTES = 1024 * 1024
MAX_WARNINGS = 20

NAME_PATTERN = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"

_EXCERPT_CHARS = 40


class TemplateError(UnacceptableError):
    """A template, or what it renders to, is over a limit."""

    code = "template_limit"


class Syntax(StrEnum):
    """How a version writes its tokens: `{{ name }}` or `[[name]]`."""

    BRACES = "braces"
    BRACKETS = "brackets"


class Token(msgspec.Struct, frozen=True, array_like=True):
    """A name to resolve, as it was written, and the literal text up to the next token."""

    name: str
    source: str
    after: str


class Template(msgspec.Struct, frozen=True, array_like=True):
    """A text split once at its tokens. Token-free text is `head` alone."""

    head: str
    tokens: tuple[Token, ...] = ()


Templates = Mapping[str, Template]
Values = Mapping[str, str]


def compile_text(text: str, syntax: Syntax) -> Template:
    """Split a text at its tokens. Raises `TemplateError` over 256 KiB or 200 tokens."""
    if byte_length(text) > MAX_SOURCE_BYTES:
        raise TemplateError(f"A template may hold {MAX_SOURCE_BYTES:,} bytes.")
    found: list[tuple[str, str]] = []
    literals: list[list[str]] = [[]]
    end = 0
    for match in _SCANNERS[syntax].finditer(text):
        if match["miss"] is not None:
            continue
        literals[-1].append(text[end : match.start()])
        end = match.end()
        if match["escaped"] is not None:
            literals[-1].append(match["escaped"])
        else:
            found.append((match["name"], match[0]))
            literals.append([])
    literals[-1].append(text[end:])
    if len(found) > MAX_TOKENS:
        raise TemplateError(f"A template may hold {MAX_TOKENS} tokens; this one has {len(found)}.")
    head, *afters = ("".join(pieces) for pieces in literals)
    tokens = (
        Token(name, source, after) for (name, source), after in zip(found, afters, strict=True)
    )
    return Template(head, tuple(tokens))


def join(parts: Sequence[Template], separator: str) -> Template:
    """Put compiled texts one after the other; no token can arise across a seam."""
    head, tokens = "", list[Token]()
    for number, part in enumerate(parts):
        before = (separator if number else "") + part.head
        if tokens:
            last = tokens[-1]
            tokens[-1] = Token(last.name, last.source, last.after + before)
        else:
            head += before
        tokens += part.tokens
    return Template(head, tuple(tokens))


def escape(text: str, syntax: Syntax) -> str:
    """Write a text so that it renders to itself, whatever it holds."""
    opener = _OPENERS[syntax]
    return text.replace(opener, "\\" + opener)


def near_misses(text: str, syntax: Syntax) -> tuple[str, ...]:
    """Describe what looks like a token and is not; such text stays literal. At most 20."""
    warnings: list[str] = []
    for match in _SCANNERS[syntax].finditer(text):
        if match["miss"] is None:
            continue
        if len(warnings) == MAX_WARNINGS:
            break
        shown = _excerpt(text, match.start(), _CLOSERS[match[0]])
        warnings.append(
            f"'{shown}' at character {match.start() + 1} is not a token and stays as it is."
        )
    return tuple(warnings)


def missing(templates: Templates, entries: Sequence[Template], values: Values) -> tuple[str, ...]:
    """Names that neither a value nor a template resolves, in order of first appearance.

    Only what is reachable counts: a value given for an include cuts its whole subtree.
    """
    names = _reachable(templates, entries, values)
    return tuple(name for name in names if name not in values and name not in templates)


def unused(templates: Templates, entries: Sequence[Template], values: Values) -> tuple[str, ...]:
    """Names of values that no reachable token asks for, sorted."""
    asked = set(_reachable(templates, entries, values))
    return tuple(sorted(name for name in values if name not in asked))


def asked(templates: Templates, entries: Sequence[Template]) -> tuple[str, ...]:
    """Names of the tokens that are reachable while no value is given, as rendering meets them."""
    return tuple(_reachable(templates, entries, {}))


def render(template: Template, templates: Templates, values: Values) -> str:
    """Render one text; see `Renderer` for several that share a limit."""
    return Renderer(templates, values).render(template)


class Renderer:
    """Renders the texts of one run, at most 1 MiB of UTF-8 in all.

    Each include is expanded once however often it is used, and a text is put together only when
    its length is known to be within the limit, so includes that double at each level end early.
    A token that nothing resolves stays as it was written. Raises `TemplateError` over a limit.
    """

    def __init__(
        self, templates: Templates, values: Values, max_bytes: int = MAX_RENDERED_BYTES
    ) -> None:
        self._templates = templates
        self._values = values
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._included: dict[str, str] = {}

    def render(self, template: Template) -> str:
        """Render one more text."""
        text = self._expand(template, 0) if template.tokens else template.head
        self._left -= byte_length(text)
        if self._left < 0:
            raise self._too_long()
        return text

    def _expand(self, template: Template, depth: int) -> str:
        values, size = self._values, len(template.head)
        pieces = [template.head]
        for token in template.tokens:
            value = values.get(token.name)
            if value is None:
                value = self._include(token, depth + 1)
            size += len(value) + len(token.after)
            if size > self._max_bytes:
                raise self._too_long()
            pieces.append(value)
            pieces.append(token.after)
        return "".join(pieces)

    def _include(self, token: Token, depth: int) -> str:
        included = self._included.get(token.name)
        if included is None:
            template = self._templates.get(token.name)
            if template is None:
                return token.source
            if depth > MAX_DEPTH:
                raise TemplateError(f"Templates may include each other {MAX_DEPTH} levels deep.")
            included = self._included[token.name] = self._expand(template, depth)
        return included

    def _too_long(self) -> TemplateError:
        return TemplateError(f"The rendered messages exceed {self._max_bytes:,} bytes.")


def find_cycle(templates: Templates) -> tuple[str, ...] | None:
    """Name the way into the first circle of includes (`main a b a`), or `None`."""
    done: set[str] = set()
    for root in templates:
        if root in done:
            continue
        path, on_path = [root], {root}
        iterators = [_includes(templates, root)]
        while iterators:
            name = next(iterators[-1], None)
            if name is None:
                iterators.pop()
                done.add(path[-1])
                on_path.discard(path.pop())
            elif name in on_path:
                return (*path, name)
            elif name not in done:
                path.append(name)
                on_path.add(name)
                iterators.append(_includes(templates, name))
    return None


def deepest_path(templates: Templates) -> tuple[str, ...]:
    """Name the longest chain of includes. Only for templates without a cycle."""
    tails: dict[str, tuple[int, str | None]] = {}
    for root in templates:
        stack = [root]
        while stack:
            name = stack[-1]
            waiting = [child for child in _includes(templates, name) if child not in tails]
            if waiting:
                stack += waiting
                continue
            stack.pop()
            lengths = ((tails[child][0], child) for child in _includes(templates, name))
            longest, child = max(lengths, default=(0, None), key=lambda tail: tail[0])
            tails[name] = (longest + 1, child)
    here = max(tails, key=lambda name: tails[name][0], default=None)
    path: list[str] = []
    while here is not None:
        path.append(here)
        here = tails[here][1]
    return tuple(path)


def byte_length(text: str) -> int:
    """Count the bytes of a text in UTF-8; for ASCII without encoding it."""
    return len(text) if text.isascii() else len(text.encode())


def _includes(templates: Templates, name: str) -> Iterator[str]:
    return iter(
        dict.fromkeys(token.name for token in templates[name].tokens if token.name in templates)
    )


def _reachable(
    templates: Templates, entries: Sequence[Template], values: Values
) -> Mapping[str, None]:
    """Collect the names of tokens as rendering meets them, each include looked into once."""
    names: dict[str, None] = {}
    stack = [iter(entry.tokens) for entry in reversed(entries)]
    while stack:
        token = next(stack[-1], None)
        if token is None:
            stack.pop()
        elif token.name not in names:
            names[token.name] = None
            if token.name not in values and token.name in templates:
                stack.append(iter(templates[token.name].tokens))
    return names


def _excerpt(text: str, start: int, closer: str) -> str:
    close = text.find(closer, start, start + _EXCERPT_CHARS)
    shown = text[start : close + len(closer) if close >= 0 else start + _EXCERPT_CHARS // 2]
    return shown.splitlines()[0]


def _scanner(opener: str, closer: str, statement: str) -> re.Pattern[str]:
    """Build the one pattern of a syntax, tried at each position once.

    Every repetition is possessive (`*+`), so a failed try gives nothing back: the scan looks at
    each character a bounded number of times. Of a run of opening characters only the last two can
    open a near miss, as only they can open a token.
    """
    first, both, end = re.escape(opener[0]), re.escape(opener), re.escape(closer)
    return re.compile(
        rf"\\(?P<escaped>{both})"
        rf"|{both} *+(?P<name>{NAME_PATTERN}+) *+{end}"
        rf"|(?P<miss>{both}(?!{first}){statement})"
    )


_OPENERS = {Syntax.BRACES: "{{", Syntax.BRACKETS: "[["}
_CLOSERS = {"{{": "}}", "[[": "]]", "{%": "%}"}
_SCANNERS = {
    # Statements of Jinja and its kin are the near miss of somebody who expects logic.
    Syntax.BRACES: _scanner("{{", "}}", r"|\{%"),
    Syntax.BRACKETS: _scanner("[[", "]]", ""),
}
