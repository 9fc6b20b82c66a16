"""An app: the namespaces its actors live in, its settings, and where requests go."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from runtime.actor.actor import Actor
from runtime.actor.http import Request, Response
from runtime.namespace.namespace import Namespace
from runtime.operator import Operator

Route = Callable[[Request, Any], Awaitable[Response]]


@attrs.frozen
class NoSettings:
    """Settings of an app that has none."""


@attrs.frozen(kw_only=True)
class App:
    """What `heliograph serve module:app` serves.

    Attributes:
        env: a frozen attrs class. A field annotated `Namespace[Room]` is the namespace of `Room` actors, stored under
            the field's name (so that renaming a class loses nothing), or under the unique key that
            `attrs.field(metadata={"key": "..."})` gives, which makes the ids those of a Durable Object namespace with
            that key. A field of the settings' class, or of one that it extends, gets the settings; one annotated
            `Operator` gets what sees all actors.
        settings: an attrs class: every table of `heliograph.toml` but `[server]`.
        routes: path to actor class (reached by the `{name}` of its path) or to `async def route(request, env)`.
            `{part}` matches one segment, `{rest:path}` whatever is left.
        start: runs once the actors can be reached and before the server listens, with the env.
        drain: runs when the server has been told to go down and before it stops accepting, with the env: the time to
            ask clients to go elsewhere. How long it may take is its own business; a second signal ends it.
    """

    env: type[Any]
    routes: Mapping[str, type[Actor[Any]] | Route]
    settings: type[Any] = NoSettings
    start: Callable[[Any], Awaitable[None]] | None = None
    drain: Callable[[Any], Awaitable[None]] | None = None

    def classes(self) -> dict[str, type[Actor[Any]]]:
        """Namespace key to actor class, from the fields of `env`.

        Raises:
            TypeError: a field is neither a namespace nor the settings. ValueError: two fields have the same key.
        """
        found: dict[str, type[Actor[Any]]] = {}
        for name, annotation in self._fields.items():
            if get_origin(annotation) is Namespace:
                key = self._key(name)
                if key in found:
                    raise ValueError(f"{self.env.__name__}.{name} has the key {key!r}, which another field has too")
                (found[key],) = get_args(annotation)
            elif annotation is not Operator and not (
                isinstance(annotation, type) and issubclass(self.settings, annotation)
            ):
                raise TypeError(
                    f"{self.env.__name__}.{name} is {annotation!r}; a field of env is Namespace[SomeActor], "
                    f"{self.settings.__name__} or Operator"
                )
        return found

    def make_env(self, namespace: Callable[[str], Namespace[Any]], settings: Any, operator: Operator) -> Any:
        """The env with its namespaces bound."""

        def bound(name: str, annotation: Any) -> Any:
            if get_origin(annotation) is Namespace:
                return namespace(self._key(name))
            return operator if annotation is Operator else settings

        return self.env(**{name: bound(name, annotation) for name, annotation in self._fields.items()})

    def namespace_field(self, actor_class: type[Actor[Any]]) -> str | None:
        """The field of `env` whose namespace has actors of this class."""
        for name, annotation in self._fields.items():
            if get_origin(annotation) is Namespace and get_args(annotation) == (actor_class,):
                return name
        return None

    def _key(self, name: str) -> str:
        key: str = getattr(attrs.fields(self.env), name).metadata.get("key", name)
        return key

    @cached_property
    def _fields(self) -> dict[str, Any]:
        hints = get_type_hints(self.env)
        return {field.name: hints[field.name] for field in attrs.fields(self.env)}


class Routes:
    """The routes of an app, compiled.

    Args:
        env: what route functions get.

    Raises:
        ValueError: a path is malformed. TypeError: an actor class that no field of env names.
    """

    def __init__(self, app: App, env: Any) -> None:
        self._env = env
        self._exact: dict[str, Route] = {}
        self._patterns: list[tuple[re.Pattern[str], Route]] = []
        for path, target in app.routes.items():
            if isinstance(target, type):
                field = app.namespace_field(target)
                if field is None:
                    raise TypeError(f"route {path!r} names {target.__name__}, which no field of env is a Namespace of")
                route = _to_actor(field, path)
            else:
                route = target
            if "{" in path:
                self._patterns.append((_compile(path), route))
            else:
                self._exact[path] = route

    async def handle(self, request: Request) -> Response:
        """Answer a request by the first route that matches, exact paths first; 404 when none does."""
        route = self._exact.get(request.path)
        if route is not None:
            return await route(request, self._env)
        for pattern, candidate in self._patterns:
            match = pattern.fullmatch(request.path)
            if match is not None:
                return await candidate(attrs.evolve(request, params=match.groupdict()), self._env)
        return Response.text(f"nothing at {request.path}\n", 404)


def _to_actor(field: str, path: str) -> Route:
    if "{name}" not in path and "{name:path}" not in path:
        raise ValueError(f"route {path!r} leads to an actor; say which with {{name}}")

    async def route(request: Request, env: Any) -> Response:
        namespace: Namespace[Actor[Any]] = getattr(env, field)
        return await namespace.get_by_name(request.params["name"]).fetch(request)

    return route


def _compile(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[a-z_]+(?::path)?\})", path)
    text = ""
    for part in parts:
        if part.startswith("{") and part.endswith("}"):
            name, _, kind = part[1:-1].partition(":")
            text += f"(?P<{name}>{'.+' if kind == 'path' else '[^/]+'})"
        elif "{" in part or "}" in part:
            raise ValueError(f"route {path!r}: a part is {{name}} or {{name:path}}")
        else:
            text += re.escape(part)
    return re.compile(text)
