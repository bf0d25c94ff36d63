"""Where a public class is shown to be: tracebacks, `help` and `repr` say where it is imported from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ForwardRef, cast


def show_as_public(names: Mapping[str, object]) -> None:
    """Let each class of a package's `__all__` say that it belongs to the package, not to a module inside of it.

    What its fields are annotated with is still looked up in that module, so `typing.get_type_hints` works.

    Args:
        names: the package's `globals()`.
    """
    package = cast("str", names["__name__"])
    public = cast("list[str]", names["__all__"])
    for value in [value for name, value in names.items() if name in public and isinstance(value, type)]:
        written_in = value.__module__
        if written_in == package or not written_in.startswith(f"{package}."):
            continue
        annotations = vars(value).get("__annotations__", {})
        for field, kind in annotations.items():
            if isinstance(kind, str):
                annotations[field] = ForwardRef(kind, is_argument=False, module=written_in)
        value.__module__ = package
