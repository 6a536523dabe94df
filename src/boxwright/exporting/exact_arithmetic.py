"""Exact arithmetic of whole numbers, and the rounding of doubles, in float32 operators of a graph.

Runtimes differ in what they make of whole numbers: some compute them in float32, where a quotient of large numbers is
off by one. Here every number between is a whole one below 2^24, which float32 holds exactly. Numbers that come in are
at most ``LARGEST_SIDE``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from boxwright.exporting.graph_writer import Number, Value

LARGEST_SIDE = 2**15
"""Largest number that comes in; beyond it results may be off."""

_DIGIT = 2**7
"""Products of two numbers are computed in two digits of this base, so that no number between reaches 2^24."""

_STEP = 8
"""Bits by which a remainder is moved at once, for the same reason."""

_DOUBLE_BITS = 53
"""Bits of a double's mantissa."""


class Fraction(NamedTuple):
    """A quotient of two whole numbers: its whole part and its remainder."""

    whole: Value
    remainder: Value

    def exceeds(self, limit: Value | Number) -> Value:
        """Tell whether it is larger than a whole number."""
        return (self.whole > limit) | (self.whole.equals(limit) & (self.remainder > 0))


def divide(dividend: Value, divisor: Value) -> Fraction:
    """Divide a whole number below 2^24."""
    remainder = _not_negative(_truncated_modulo(dividend, divisor), divisor)
    # A whole number, but for runtimes that multiply by the reciprocal instead of dividing.
    return Fraction(((dividend - remainder) / divisor).round(), remainder)


def divide_product(one: Value, other: Value, divisor: Value) -> Fraction:
    """Divide a product of two numbers; exact where the quotient is below 2^24."""
    high = (other / _DIGIT).floor()
    first = divide(one * high, divisor)
    second = divide(first.remainder * _DIGIT + one * (other - high * _DIGIT), divisor)
    return Fraction(first.whole * _DIGIT + second.whole, second.remainder)


def round_half_even(fraction: Fraction, divisor: Value) -> Value:
    """Round a quotient to the nearest whole number, halves to the even one."""
    is_odd = fraction.whole - (fraction.whole / 2).floor() * 2
    doubled = fraction.remainder * 2
    return fraction.whole + ((doubled > divisor) | (doubled.equals(divisor) & (is_odd > 0))).to_float()


def largest_power(value: Value, scale: Value | Number, exponents: range) -> Value:
    """Return the largest of some powers of two whose product with ``scale`` a value reaches, or else the first."""
    return select_power(value >= value.writer.constant([_powers(exponents)]) * scale, exponents)


def select_power(is_reached: Value, exponents: range) -> Value:
    """Return the largest power of two that is reached, or else the first.

    Args:
        is_reached: of shape (n, number of exponents).
        exponents: of the powers.
    """
    writer = is_reached.writer
    reached = writer.where(is_reached, writer.constant([_powers(exponents)]), 2.0 ** exponents[0])
    return writer.add("ReduceMax", reached, writer.constant([1], np.int64), attributes={"keepdims": 1})


class DoubleQuotient:
    """A quotient ``dividend / divisor`` as doubles hold it: rounded to 53 bits.

    With q the exact quotient, 2^e its largest power of two and k = 52 - e, the double is m / 2^k, where m is the whole
    number nearest to q 2^k. ``error`` is dividend 2^k - m divisor: positive where the double is below q.

    Args:
        remainder: of dividend by divisor, or the dividend itself where it is below 2^15.
        divisor: the divisor.
        power: 2^e.
        exponents: the least and the largest e that there may be.
    """

    def __init__(self, remainder: Value, divisor: Value, power: Value, exponents: tuple[int, int]) -> None:
        low, high = exponents
        self.divisor, self.power = divisor, power
        # 2^k is 2^(52 - high) times 2^(high - e), which is a whole number too.
        factors: list[Value | Number] = [*_split_power(_DOUBLE_BITS - 1 - high), *self._split_rest(low, high)]
        for factor in factors:
            remainder = _truncated_modulo(remainder * factor, divisor)
        remainder = _not_negative(remainder, divisor)
        is_above = remainder * 2 > divisor
        self.error = divisor.writer.where(is_above, remainder - divisor, remainder)

    def _split_rest(self, low: int, high: int) -> list[Value]:
        rest = 2.0**high / self.power
        factors = []
        for _ in range(math.ceil((high - low) / _STEP)):
            factors.append(rest.at_most(2.0**_STEP))
            rest = rest / factors[-1]
        return factors

    def floor_of_product(self, factor: Value, dividend: Value, offset: Number = 0.0) -> Value:
        """Compute floor(factor * quotient + offset) as doubles do, all three operations rounded.

        Only where the exact result is a whole number can doubles differ from it: they are one below where their product
        is.

        Args:
            factor: a whole number.
            dividend: that of this quotient.
            offset: 0 or 0.5.
        """
        exact = divide_product(factor, dividend, self.divisor)
        if offset:
            doubled = exact.remainder * 2
            is_tie = doubled.equals(self.divisor)
            rounded = exact.whole + (doubled >= self.divisor).to_float()
            return rounded - (is_tie & self._is_product_below(factor, exact.whole + offset)).to_float()
        is_whole = exact.remainder.equals(0)
        return exact.whole - (is_whole & self._is_product_below(factor, exact.whole)).to_float()

    def _is_product_below(self, factor: Value, exact: Value) -> Value:
        """Tell whether factor * quotient, whose exact value is a half or whole number, is below it in doubles.

        With t = factor q and 2^f its largest power of two: half a step of doubles is 2^(f - 53) around t, and half of
        that below it where t is a power of two. The product is below where t - factor m / 2^k, which is
        factor error / (divisor 2^k), is larger.
        """
        writer = factor.writer
        power = largest_power(exact, 1.0, range(-1, 25))
        limit = power / self.power * writer.where(exact.equals(power), 0.5, 1.0)
        return (self.error > 0) & divide_product(factor, (self.error * 2).at_least(0), self.divisor).exceeds(limit)


def _split_power(exponent: int) -> list[float]:
    """Split a power of two into factors of ``_STEP`` bits at most."""
    steps, rest = divmod(exponent, _STEP)
    return [2.0**_STEP] * steps + [2.0**rest] * (rest > 0)


def _truncated_modulo(dividend: Value, divisor: Value) -> Value:
    """Compute a remainder that may be one divisor too small.

    Some runtimes compute it from the quotient, which is rounded first, and may have become the next whole number.
    """
    return dividend.writer.add("Mod", dividend, divisor, attributes={"fmod": 1})


def _not_negative(remainder: Value, divisor: Value) -> Value:
    return remainder.writer.where(remainder < 0, remainder + divisor, remainder)


def _powers(exponents: range) -> list[float]:
    return [2.0**exponent for exponent in exponents]
