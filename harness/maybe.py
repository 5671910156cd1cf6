"""``Maybe[T]``: a value, or the reason why there is none.

Rule 1 of the project as a type: what could not be measured is ``Unavailable(reason, remedy)`` in
the value's place, in memory and in JSON (``{"unavailable": reason, "remedy": text}``), never 0 and
never null. To a type checker ``Maybe[T]`` is ``T | Unavailable``. msgspec cannot tell two untagged
objects apart in a union, so at run time it is a marker class that `decode` resolves by the key.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args, get_origin

import msgspec

T = TypeVar("T")
UNAVAILABLE_REF = "Unavailable"


class Unavailable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a quantity is absent (``unavailable``), and what would make it present (``remedy``)."""

    unavailable: str
    remedy: str = ""

    @property
    def reason(self) -> str:
        return self.unavailable


if TYPE_CHECKING:
    Maybe: TypeAlias = T | Unavailable
else:

    class _Marker(type):
        def __instancecheck__(cls, obj: Any) -> bool:
            # A raw JSON object here means that the decoding went past `decode` and its hook.
            kind = get_origin(cls.inner) or cls.inner
            return not isinstance(obj, dict) or kind is dict

    class Maybe:
        """Run-time marker; ``Maybe[T].inner`` is ``T``."""

        @classmethod
        @cache
        def __class_getitem__(cls, inner: Any) -> type:
            return _Marker(f"Maybe[{inner}]", (), {"inner": inner})


# Why a physical quantity is absent, in one word that programs can test: the prefix of the reason.
Code = Literal[
    "not_present",
    "permission_denied",
    "not_supported",
    "virtualized",
    "window_too_short",
    "insufficient_samples",
    "counter_reset",
    "disagreement",
    "not_resolvable",
    "error",
]


def coded(code: Code, detail: str, remedy: str = "") -> Unavailable:
    """`Unavailable` whose reason reads ``code: detail``."""
    return Unavailable(f"{code}: {detail}", remedy)


def code_of(reason: Unavailable) -> str | None:
    """The code that `coded` put in front of the reason; None where there is none."""
    prefix = reason.unavailable.partition(":")[0]
    return prefix if prefix in get_args(Code) else None


def explain(absent: Unavailable) -> str:
    """``reason; remedy`` for people, without the code that programs go by."""
    code = code_of(absent)
    reason = absent.reason.removeprefix(f"{code}:").strip() if code else absent.reason
    return "; ".join(filter(None, (reason, absent.remedy)))


def present(value: Maybe[T]) -> T | None:
    """The value, or None where it is unavailable: for renderers that leave absent things out."""
    return None if isinstance(value, Unavailable) else value


def _from_builtins(kind: Any, obj: Any) -> Any:
    inner = getattr(kind, "inner", None)
    if inner is None:
        raise NotImplementedError(f"no decoder for {kind!r}")
    if isinstance(obj, dict) and "unavailable" in obj:
        return msgspec.convert(obj, Unavailable)
    return msgspec.convert(obj, inner, dec_hook=_from_builtins)


def decode(data: bytes | str, kind: type[T]) -> T:
    """Decode JSON into ``kind``, resolving every ``Maybe``. Raises `msgspec.DecodeError`."""
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_from_builtins)
    except (UnicodeError, RecursionError) as error:  # no UTF-8; nested without an end
        raise msgspec.DecodeError(str(error)) from error


def convert(obj: Any, kind: type[T]) -> T:
    """Like `decode`, from dicts and lists. Raises `msgspec.ValidationError`."""
    return msgspec.convert(obj, kind, dec_hook=_from_builtins)


def json_schema(kind: type[Any]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of ``kind``, with each ``Maybe[T]`` as *T or Unavailable*."""
    from inspect import cleandoc

    extra: dict[str, Any] = {}

    def hook(marker: Any) -> dict[str, Any]:
        (inner, unavailable), found = msgspec.json.schema_components(
            [marker.inner, Unavailable], schema_hook=hook, ref_template="#/$defs/{name}"
        )
        extra.update(found)
        return {"anyOf": [inner, unavailable]}

    schema = msgspec.json.schema(kind, schema_hook=hook)
    schema.setdefault("$defs", {}).update(extra)
    for definition in schema["$defs"].values():
        if "description" in definition:  # a docstring, which Python 3.13 no longer indents
            definition["description"] = cleandoc(definition["description"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
