"""Tests of the guarantees: all pages list the same thirteen, tests carry their numbers, and named tests exist."""

from __future__ import annotations

import re

import pytest
from pages import ROOT, text_of

README, PAGE = text_of(ROOT / "README.md"), text_of(ROOT / "docs" / "guarantees.md")
NUMBERS = range(1, 14)
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^ *(?:async )?def (test_\w+)\(", text_of(path), flags=re.MULTILINE)
}


def section(number: int) -> str:
    (text,) = re.findall(rf"^## {number}\. (.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    return text


@pytest.mark.parametrize("number", NUMBERS)
def test_every_test_that_the_page_names_exists_and_carries_the_number(number: int):
    named = re.findall(r"^- `(test_\w+)`", section(number), flags=re.MULTILINE)
    assert len(named) >= 2
    assert set(named) <= TESTS
    assert all(name.startswith(f"test_guarantee_{number}_") for name in named)


@pytest.mark.parametrize("number", NUMBERS)
def test_each_guarantee_stands_in_the_readme_too_in_the_same_first_words(number: int):
    (words,) = re.findall(rf"^{number}\. \*\*(.+?)\.?\*\*", README, flags=re.MULTILINE)
    assert section(number).splitlines()[0] == words


@pytest.mark.parametrize("number", NUMBERS)
def test_each_guarantee_has_tests_that_carry_its_number(number: int):
    assert [name for name in TESTS if name.startswith(f"test_guarantee_{number}_")]


def test_no_test_carries_the_number_of_a_guarantee_that_there_is_not():
    numbers = {int(number) for name in TESTS for number in re.findall(r"guarantee_(\d+)", name)}
    assert numbers == set(NUMBERS)
