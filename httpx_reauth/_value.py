"""Frozen, slotted dataclasses that cost an import next to nothing.

`dataclasses.dataclass(frozen=True, slots=True)` writes and compiles six functions for each class, over half a
millisecond of every import. Here they are written once, for all of them; and what the standard library finds out about
the fields of a class, it is asked for when somebody first needs it. To `dataclasses.replace`, `asdict` and `fields`,
to `match`, `inspect.signature` and the type checkers, the classes are dataclasses like any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - that is how a type checker knows it as ours
    from inspect import Signature

_T = TypeVar("_T")


def _init(self: Any, /, *values: Any, **named: Any) -> None:
    cls = self.__class__
    positions: tuple[str, ...] = cls.__match_args__
    if len(values) > len(positions):
        raise TypeError(f"{cls.__name__}() takes {len(positions)} positional arguments, and was given {len(values)}.")
    for name, value in zip(positions, values):  # noqa: B905 - the rest is named, or has a default
        if name in named:
            raise TypeError(f"{cls.__name__}() got two values for {name}.")
        named[name] = value
    for name, field in cls.__dataclass_fields__.items():
        if name in named:
            value = named.pop(name)
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise TypeError(f"{cls.__name__}() needs a value for {name}.")
        object.__setattr__(self, name, value)
    if named:
        raise TypeError(f"{cls.__name__}() got an unexpected field: {', '.join(named)}.")
    cls.__post_init__(self)


def _checked(_: object) -> None:
    """Every value is fine, where a class says nothing else."""


def _setattr(_: object, name: str, __: object) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(_: object, name: str) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _repr(self: Any) -> str:
    shown = [f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, field.name) for field in dataclasses.fields(self) if field.compare])


def _eq(self: object, other: object) -> bool:
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    hashed = [field.name for field in dataclasses.fields(self) if (field.compare if field.hash is None else field.hash)]
    return hash(tuple([getattr(self, name) for name in hashed]))


def _replace(self: Any, /, **changes: Any) -> Any:
    """For `copy.replace`, of Python 3.13."""
    return dataclasses.replace(self, **changes)


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default is not dataclasses.MISSING:
        return field.default
    from inspect import Parameter

    return Parameter.empty if field.default_factory is dataclasses.MISSING else ...


class _Signature:
    """What `inspect.signature` and `help` show of a class: its fields, which the shared `__init__` does not name."""

    def __get__(self, _: object, owner: type[Any]) -> Signature:
        if owner.__init__ is not _init:
            raise AttributeError("__signature__")  # a subclass has one of its own
        from inspect import Parameter, Signature

        parameters = [
            Parameter(
                field.name,
                Parameter.KEYWORD_ONLY if field.kw_only else Parameter.POSITIONAL_OR_KEYWORD,
                default=_default(field),
                annotation=field.type,
            )
            for field in dataclasses.fields(owner)
        ]
        return Signature(parameters, return_annotation=None)


_DESCRIPTION = ("__dataclass_fields__", "__dataclass_params__", "__match_args__")


def _without_slots(cls: type[Any]) -> dict[str, Any]:
    """What `cls` was declared with: not what it has got because it has no slots."""
    return {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}


class _Described:
    """An attribute that the standard library makes of a class as it was declared, when the first of them is needed."""

    __slots__ = ("declared", "made", "name")

    def __init__(self, declared: type[Any]) -> None:
        self.declared = declared

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.made = owner
        self.name = name

    def __get__(self, _: object, __: object) -> object:
        # A class of its own for each thread that comes at once: it takes the fields out of the one that it is given.
        metaclass: Any = type(self.declared)
        fresh = metaclass(self.declared.__name__, self.declared.__bases__, _without_slots(self.declared))
        described: Any = dataclasses.dataclass(init=False, repr=False, eq=False)(fresh)
        described.__dataclass_params__.frozen = True  # what a subclass is asked about
        for name in _DESCRIPTION:
            setattr(self.made, name, getattr(described, name))
        return getattr(described, self.name)


_METHODS = {
    "__init__": _init,
    "__post_init__": _checked,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__replace__": _replace,
    "__signature__": _Signature(),
}

if not TYPE_CHECKING:  # pragma: no branch - a type checker sees the standard one

    def dataclass(*, frozen: bool, slots: bool, repr: bool = True) -> Callable[[type[_T]], type[_T]]:  # noqa: A002, ARG001 - one that says no has its own
        """`dataclasses.dataclass(frozen=True, slots=True)`; a class keeps the `__repr__` and `__post_init__` it has."""
        if not (frozen and slots):
            raise TypeError("There are only frozen, slotted ones here.")

        def make(cls: type[_T]) -> type[_T]:
            fields = tuple(cls.__annotations__)
            left = {name: value for name, value in _without_slots(cls).items() if name not in fields}
            described = {name: _Described(cls) for name in _DESCRIPTION}
            return type(cls)(cls.__name__, cls.__bases__, _METHODS | described | left | {"__slots__": fields})

        return make
