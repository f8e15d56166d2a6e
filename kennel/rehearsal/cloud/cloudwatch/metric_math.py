"""Metric math, as far as alarms use it: arithmetic, comparisons, AND, OR, IF, FILL and some functions.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

Points = list[float | None]  # one for each period, oldest first; None: no data
Value = float | Points

_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a / b if b else None,  # CloudWatch has no data point there
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.And: lambda *values: all(values),
    ast.Or: lambda *values: any(values),
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {"ABS": abs, "CEIL": math.ceil, "FLOOR": math.floor}
_OF_SEVERAL: Mapping[str, Callable[..., Any]] = {"MAX": max, "MIN": min, "SUM": lambda *values: math.fsum(values)}
_IN_PYTHON = ((r"&&|\bAND\b", " and "), (r"\|\||\bOR\b", " or "), (r"\^", "**"))


def evaluate(expression: str, series: Mapping[str, Points]) -> Points:
    """Return the points of `expression`; `series` are those of the ids in it, all of one length.

    Raise NotImplementedError for what is not rehearsed.
    """
    text = expression
    for pattern, python in _IN_PYTHON:
        text = re.sub(pattern, python, text)
    found = _Evaluation(series).value(ast.parse(text, mode="eval").body)
    length = len(next(iter(series.values())))
    return found if isinstance(found, list) else [found] * length


class _Evaluation:
    def __init__(self, series: Mapping[str, Points]) -> None:
        self._series = series

    def value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name) if name in self._series:
                return self._series[name]
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._call(name, arguments)
        if (found := _operation(node)) and (function := _OPERATORS.get(found[0])):
            return _each(function, *[self.value(one) for one in found[1]])
        raise NotImplementedError(f"{ast.unparse(node)} in metric math is not rehearsed")

    def _call(self, name: str, arguments: list[ast.expr]) -> Value:
        if name == "FILL":
            return self._fill(*arguments)
        if name == "IF":
            condition, then, *other = [self.value(one) for one in arguments]
            return _each(lambda chosen, a, b: a if chosen else b, condition, then, *(other or [0.0]), gaps=True)
        if name in _OF_SEVERAL and isinstance(arguments[0], ast.List):
            return _each(_OF_SEVERAL[name], *[self.value(one) for one in arguments[0].elts])
        if name in _FUNCTIONS:
            return _each(_FUNCTIONS[name], self.value(arguments[0]))
        raise NotImplementedError(f"{name} in metric math is not rehearsed: add it to cloudwatch/metric_math.py")

    def _fill(self, series: ast.expr, by: ast.expr) -> Value:
        found = self.value(series)
        if not isinstance(found, list):
            return found
        if isinstance(by, ast.Name) and by.id == "REPEAT":
            last = [next((one for one in found[place::-1] if one is not None), None) for place in range(len(found))]
            return last
        other = self.value(by)
        filler = other if isinstance(other, list) else [other] * len(found)
        return [second if first is None else first for first, second in zip(found, filler, strict=True)]


def _operation(node: ast.expr) -> tuple[type[ast.AST], list[ast.expr]] | None:
    """Return the operator and its operands, or None for what is no operation."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) | ast.Compare(left=left, ops=[op], comparators=[right]):
            return type(op), [left, right]
        case ast.BoolOp(op=op, values=values):
            return type(op), values
        case ast.UnaryOp(op=op, operand=operand):
            return type(op), [operand]
    return None


def _each(function: Callable[..., Any], *operands: Value, gaps: bool = False) -> Value:
    """Return `function` at each period; a gap in an operand is one in the result, unless `gaps` allows all but the
    first operand to have some.
    """
    lengths = [len(one) for one in operands if isinstance(one, list)]
    if not lengths:
        return float(function(*operands))
    columns = [one if isinstance(one, list) else [one] * lengths[0] for one in operands]
    found: Points = []
    for row in zip(*columns, strict=True):
        known = row[0] is not None if gaps else None not in row
        value = function(*row) if known else None
        found.append(None if value is None else float(value))
    return found
