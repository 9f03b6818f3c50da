"""Read a process's settings from its environment, and name everything that is wrong with them at once."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from runtime.errors import SettingsError

SettingsT = TypeVar("SettingsT", bound=BaseSettings)

_SERVICE_LINK: Final = re.compile(
    r"SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?"
)


class EnvironmentSource(PydanticBaseSettingsSource):
    """Turn every variable under the prefix into a nested mapping, known field or not.

    pydantic-settings' own source leaves out names it does not know and stops at the first value it cannot decode; this
    one hands everything over, so that validation finds all problems at once.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - fixed by base
        """Return nothing: ``__call__`` reads all fields at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the environment's part of the settings."""
        return nested(os.environ, str(self.config.get("env_prefix", "")))


def nested(environment: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """Return the variables under a prefix as a tree, ``A__B`` becoming ``{"a": {"b": ...}}``; none without a prefix.

    What Kubernetes puts there for a Service of our name (host, port and addresses of each port) is left out.
    """
    tree: dict[str, Any] = {}
    if not prefix:
        return tree
    has_links = {f"{prefix}SERVICE_HOST", f"{prefix}SERVICE_PORT"} <= environment.keys()
    for name, value in sorted(environment.items()):
        if not name.upper().startswith(prefix) or (has_links and _SERVICE_LINK.fullmatch(name, len(prefix))):
            continue
        readable = name.encode("utf-8", "backslashreplace").decode()  # so that a name of other bytes is told like any
        *sections, field = readable[len(prefix) :].lower().split("__")
        branch = tree
        for section in sections:
            step = branch.setdefault(section, {})
            if not isinstance(step, dict):  # a value stands where a section belongs: kept under no name, and refused
                step = branch[section] = {"": step}
            branch = step
        branch[field] = value
    return tree


def load_settings(settings_type: type[SettingsT]) -> SettingsT:
    """Read a process's settings from the environment.

    Raises:
        SettingsError: something is missing, unknown, out of range or contradictory; it names every problem, by
            variable, and no value.
    """
    problems = list(_doubled(os.environ, str(settings_type.model_config.get("env_prefix", ""))))
    try:
        settings = settings_type()
    except ValidationError as error:
        raise SettingsError([*problems, *_problems(settings_type, error)]) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _doubled(environment: Mapping[str, str], prefix: str) -> Iterator[str]:
    """Yield each variable that is given in two spellings: `nested` takes one, and nobody could say which."""
    seen: set[str] = set()
    for name in sorted(environment):
        variable = name.upper()
        if prefix and variable.startswith(prefix) and variable in seen:
            yield f"{variable}: is given twice, also as {name}"
        seen.add(variable)


def _problems(settings_type: type[BaseSettings], error: ValidationError) -> Iterator[str]:
    prefix = str(settings_type.model_config.get("env_prefix", ""))
    leaves = list(_leaves(settings_type))
    known = [_variable(prefix, path) for path in leaves]
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        path = tuple(str(step) for step in detail["loc"])
        variable = _variable(prefix, path)
        if detail["type"] == "missing":
            yield from _lacking(settings_type, path, prefix)
        elif detail["type"] == "extra_forbidden" or (path in leaves and _below(variable)):
            is_value = path[-1] == ""  # of a section, which has none: `nested` keeps it under no name
            for name in [variable] if is_value else _below(variable) or [variable]:
                close = difflib.get_close_matches(name, known, n=1)
                yield f"{name}: no such setting" + (f"; did you mean {close[0]}?" if close else "")
        else:
            where = f"{variable}: " if path else ""
            yield from (f"{where}{line}" for line in _lines(detail["msg"]))


def _lines(message: str) -> list[str]:
    return message.removeprefix("Value error, ").splitlines()


def _below(variable: str) -> list[str]:
    """Return the variables that treat this one as a section."""
    return sorted(name.upper() for name in os.environ if name.upper().startswith(f"{variable}__"))


def _variable(prefix: str, path: tuple[str, ...]) -> str:
    return (prefix + "__".join(path).upper()).removesuffix("__")


def _section(annotation: object) -> type[BaseModel] | None:
    """Return the class of a section, also of one that may be left out."""
    for choice in (annotation, *get_args(annotation)):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None


def _leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is None:
            yield (*path, name)
        else:
            yield from _leaves(section, (*path, name))


def _lacking(model: type[BaseModel], path: tuple[str, ...], prefix: str) -> Iterator[str]:
    """Yield what a missing field or section lacks: its required variables, else what it says of itself when empty."""
    current: type[BaseModel] | None = model
    for step in path:
        field = current.model_fields.get(step) if current is not None else None
        current = _section(field.annotation) if field is not None else None
    fields = current.model_fields.items() if current is not None else ()
    required = [_variable(prefix, (*path, name)) for name, field in fields if field.is_required()]
    if current is not None and not required:
        try:
            current.model_validate({})
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            yield from (f"{_variable(prefix, path)}: {line}" for detail in details for line in _lines(detail["msg"]))
            return
    yield from (f"{name}: is required" for name in required or [_variable(prefix, path)])
