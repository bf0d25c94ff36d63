"""The values are dataclasses like any other, but for what they cost an import."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import subprocess
import sys
from dataclasses import FrozenInstanceError, field
from typing import Any

import pytest

from httpx_reauth import (
    AuthState,
    RefreshFulfilled,
    RefreshPending,
    RefreshRejected,
    SaveFailed,
    SignedIn,
    SignedOut,
    Token,
)
from httpx_reauth._value import dataclass


def _fields(namespace: dict[str, Any]) -> dict[str, Any]:
    annotations = {"one": "int", "two": "int", "three": "str", "made": "list[int]", "hidden": "int", "apart": "int"}
    return {"__annotations__": annotations, "__module__": __name__, **namespace}


def _body() -> dict[str, Any]:
    return _fields(
        {
            "__doc__": "A value.",
            "two": 2,
            "three": field(default="3", kw_only=True),
            "made": field(default_factory=list, kw_only=True, hash=False),
            "hidden": field(default=0, kw_only=True, repr=False, compare=False),
            "apart": field(default=0, kw_only=True, hash=False),
        }
    )


Ours = dataclass(frozen=True, slots=True)(type("Value", (), _body()))
Theirs = dataclasses.dataclass(frozen=True, slots=True)(type("Value", (), _body()))
BOTH = pytest.mark.parametrize("cls", [Ours, Theirs], ids=["ours", "the standard library's"])
PUBLIC = [Token, AuthState, RefreshPending, RefreshFulfilled, RefreshRejected, SaveFailed, SignedIn, SignedOut]


@BOTH
def test_a_value_takes_its_fields_by_position_and_by_name(cls: Any):
    assert (cls(1).one, cls(1).two, cls(1).three, cls(1).made) == (1, 2, "3", [])
    assert cls(1).made is not cls(1).made
    assert cls(1, 5, three="x") == cls(one=1, two=5, three="x")
    assert cls.__match_args__ == ("one", "two")


@BOTH
@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, 2, "3"), {}), ((1,), {"one": 1}), ((1,), {"four": 4})],
    ids=["too few", "too many", "twice", "unknown"],
)
def test_a_value_with_other_fields_is_refused(cls: Any, values: Any, named: Any):
    with pytest.raises(TypeError):
        cls(*values, **named)


@BOTH
def test_a_value_is_frozen(cls: Any):
    value = cls(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'one'"):
        value.one = 2
    with pytest.raises((FrozenInstanceError, TypeError)):
        value.new = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'one'"):
        del value.one
    assert value.one == 1
    assert not hasattr(value, "__dict__")


@BOTH
def test_what_is_compared_hashed_and_shown_is_what_the_fields_say(cls: Any):
    assert cls(1, hidden=1) == cls(1, hidden=2)
    assert cls(1, apart=1) != cls(1, apart=2)
    assert cls(1, made=[1]) != cls(1, made=[2])
    assert hash(cls(1, made=[1], apart=1, hidden=1)) == hash(cls(1, made=[2], apart=2, hidden=2))
    assert hash(cls(1)) != hash(cls(2))
    assert repr(cls(1)) == "Value(one=1, two=2, three='3', made=[], apart=0)"


def test_values_of_two_classes_are_never_equal():
    assert Ours(1) != Theirs(1)
    assert SignedOut() != 1
    assert SignedOut() == SignedOut()


@BOTH
def test_the_tools_for_dataclasses_take_it(cls: Any):
    value = cls(1)
    assert dataclasses.is_dataclass(cls)
    assert [one.name for one in dataclasses.fields(cls)] == ["one", "two", "three", "made", "hidden", "apart"]
    assert dataclasses.replace(value, two=7) == cls(1, 7)
    assert cls(**dataclasses.asdict(value)) == value
    assert list(inspect.signature(cls).parameters) == ["one", "two", "three", "made", "hidden", "apart"]


def test_its_signature_is_that_of_any_dataclass_but_for_what_a_factory_makes():
    ours, theirs = (inspect.signature(cls).parameters for cls in (Ours, Theirs))
    for one, other in zip(ours.values(), theirs.values(), strict=True):
        assert (one.name, one.kind, one.annotation) == (other.name, other.kind, other.annotation)
        assert one.default == (... if one.name == "made" else other.default)


@BOTH
def test_a_subclass_may_be_a_dataclass_with_more_fields(cls: Any):
    more = dataclasses.dataclass(frozen=True)(type("More", (cls,), {"__annotations__": {"more": "int"}, "more": 9}))
    assert list(inspect.signature(more).parameters)[-1] == "hidden" or "more" in inspect.signature(more).parameters
    assert (more(1).two, more(1, 2, 3).more) == (2, 3)
    with pytest.raises(TypeError, match="frozen"):
        dataclasses.dataclass(type("Thawed", (cls,), {}))


def test_a_subclass_with_an_init_of_its_own_shows_that():
    class Narrow(Token):
        def __init__(self, only: str) -> None:
            super().__init__(only)

    assert list(inspect.signature(Narrow).parameters) == ["only"]
    assert Narrow("one").access_token == "one"


def test_a_class_keeps_what_it_says_itself():
    assert repr(Token("secret")).startswith("Token('***'")
    with pytest.raises(ValueError, match="cannot be sent"):
        Token("line\nbreak")


@pytest.mark.parametrize("cls", PUBLIC)
def test_every_public_value_is_one(cls: type):
    assert dataclasses.is_dataclass(cls)
    assert cls.__init__ is Ours.__init__
    assert cls.__dataclass_params__.frozen


def test_two_threads_that_need_a_class_at_once_both_get_it_whole(monkeypatch: pytest.MonkeyPatch):
    """What the standard library finds out, it takes out of the class that it is given."""
    mine = dataclass(frozen=True, slots=True)(type("Value", (), _body()))
    describe, made = dataclasses.dataclass, []

    def describe_twice(**options: Any) -> Any:
        def in_between(cls: type) -> type:
            described = describe(**options)(cls)
            if not made:  # the other thread begins after this one's work, and ends before it is told
                made.append(cls)
                assert mine(1).made == []
            return described

        return in_between

    monkeypatch.setattr(dataclasses, "dataclass", describe_twice)
    assert mine(1) == mine(1, hidden=5)
    assert repr(mine(1)) == repr(Theirs(1))
    with pytest.raises(TypeError):
        mine(1, 2, "3")


@pytest.mark.parametrize("options", [{"frozen": False, "slots": True}, {"frozen": True, "slots": False}])
def test_another_kind_of_dataclass_is_not_to_be_had_here(options: dict[str, bool]):
    with pytest.raises(TypeError, match="only frozen, slotted"):
        dataclass(**options)


def test_an_import_compiles_no_code():
    """The reason for all this: what a dataclass generates is compiled anew by every process."""
    program = (
        "import builtins, httpx\n"
        "def no(*arguments, **named): raise SystemExit(f'code was generated: {str(arguments)[:300]}')\n"
        "import re, collections, dataclasses\n"
        "dataclasses._create_fn = no\n"
        "if hasattr(dataclasses, '_FuncBuilder'): dataclasses._FuncBuilder.add_fn = no\n"
        "re.compile = no\n"
        "import httpx_reauth\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("values", "named", "words"),
    [
        ((1, 2, 3), {}, "Value() takes 2 positional arguments, and was given 3."),
        ((1,), {"one": 1}, "Value() got two values for one."),
        ((), {"two": 2}, "Value() needs a value for one."),
        ((1,), {"x": 1, "y": 2}, "Value() got an unexpected field: x, y."),
    ],
)
def test_a_value_that_cannot_be_made_says_why(values: tuple[int, ...], named: dict[str, int], words: str):
    with pytest.raises(TypeError) as caught:
        Ours(*values, **named)
    assert str(caught.value) == words


@BOTH
def test_a_signature_returns_none(cls: Any):
    assert inspect.signature(cls).return_annotation is None


def test_a_subclass_with_an_init_of_its_own_has_no_signature_of_ours():
    class Other(Ours):  # type: ignore[misc]
        def __init__(self) -> None: ...

    with pytest.raises(AttributeError, match=r"^__signature__$"):
        Other.__signature__  # noqa: B018


@pytest.mark.skipif(sys.version_info < (3, 13), reason="copy.replace came with Python 3.13")
@BOTH
def test_copy_replace_takes_it(cls: Any):
    assert copy.replace(cls(1), two=7) == cls(1, 7)


def test_its_own_replace_is_that_of_a_dataclass():
    assert Ours(1).__replace__(two=7) == Ours(1, 7)
