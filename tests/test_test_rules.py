"""Rules that the tests themselves keep."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def never_fails(test):
    """Why an asserted expression may hold whatever the code does; None where nothing speaks for it.

    ``assert found == wanted if known else True`` is ``assert (... if known else True)``: where `known` is false it
    asserts nothing. A tuple is true, and so is a text that was meant as the message.
    """
    if isinstance(test, ast.IfExp):
        return "a conditional expression: use an if statement, or parentheses around the compared value"
    if isinstance(test, ast.Tuple) and test.elts:
        return "a tuple, which is always true"
    if isinstance(test, ast.Constant) and test.value:
        return "a constant"
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return next((why for why in map(never_fails, test.values) if why and "constant" in why), None)
    if isinstance(test, ast.BoolOp):
        return next(filter(None, map(never_fails, test.values)), None)
    return None


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("assert a == b if c else True", True),
        ("assert a, 'message'", False),
        ("assert (a, 'message')", True),
        ("assert a or True", True),
        ("assert a and (b if c else True)", True),
        ("assert a == (b if c else d)", False),
    ],
)
def test_the_rule_sees_what_it_is_for(source, caught):
    assert bool(never_fails(ast.parse(source).body[0].test)) is caught


def test_every_assertion_can_fail():
    found = []
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert) and (why := never_fails(node.test)):
                found.append(f"{path.relative_to(TESTS)}:{node.lineno} asserts {why}")
    assert found == []
