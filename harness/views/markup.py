"""HTML from untrusted text: whatever is not `Html` already is escaped."""

from __future__ import annotations

from html import escape

_VOID = ("meta", "br", "col")


class Html(str):
    """Markup, as opposed to text. Made by `h` and `raw` alone."""

    __slots__ = ()


def h(name: str, *children: str | None, **attributes: str | bool) -> Html:
    """An element; ``class_`` is class, ``data_label`` is data-label, True an attribute alone."""
    text = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{join(*children)}</{name}>")


def join(*children: str | None) -> Html:
    """The children one after the other; texts escaped, None left out."""
    return Html(
        "".join(
            child if isinstance(child, Html) else escape(child)
            for child in children
            if child is not None
        )
    )


def raw(markup: str) -> Html:
    """Markup of our own: assets of this package, never text from a result."""
    return Html(markup)


def script(source: str) -> Html:
    """A classic script; its source cannot close the element."""
    return Html(f"<script>{_inline(source)}</script>")


def _inline(source: str) -> str:
    return source.replace("</", "<\\/").replace("<!--", "<\\!--")


def json_block(name: str, data: bytes) -> Html:
    """JSON that a script reads by id. Nothing in it can end the element."""
    text = data.decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{escape(name)}">{text}</script>')


def _attribute(key: str, value: str | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    if isinstance(value, bool):
        return f" {name}" if value else ""
    return f' {name}="{escape(value)}"'
