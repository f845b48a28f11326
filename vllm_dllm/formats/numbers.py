"""Regexes of the numbers in an interval, as JSON writes them."""

INTEGER = "(?:0|[1-9][0-9]*)"
FRACTION = r"(?:\.[0-9]{1,15})?"  # as many digits as a double keeps apart
NUMBER = rf"-?{INTEGER}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{{1,2}})?"
NONE = r"[^\s\S]"  # no character


def any_of(parts: list[str]) -> str:
    return f"(?:{'|'.join(parts)})" if parts else NONE


def integers(low: int | None, high: int | None) -> str:
    """The whole numbers from `low` to `high`; None: no bound."""
    parts = []
    if high is None or high >= 0:
        parts.append(_upwards(max(low or 0, 0), high))
    if low is None or low < 0:
        parts.append("-" + _upwards(max(1, -(-1 if high is None else high)), None if low is None else -low))
    return any_of(parts)


def numbers(low: int | None, high: int | None, without_low: bool, without_high: bool) -> str:
    """The numbers from `low` to `high`, whole bounds that belong to them or not, written without exponents."""
    parts = []
    if high is None or high > 0 or (high == 0 and not without_high):
        below = low is None or low < 0
        parts.append(_positive(0 if below else low or 0, high, without_low and not below, without_high))
    if low is None or low < 0:
        above = high is None or high >= 0
        parts.append(
            "-"
            + _positive(0 if above else -(high or 0), None if low is None else -low, above or without_high, without_low)
        )
    return any_of(parts)


def _positive(low: int, high: int | None, without_low: bool, without_high: bool) -> str:
    """As `numbers`, none of them negative."""
    if high is not None and (low > high or (low == high and (without_low or without_high))):
        return NONE
    if low == high:
        return rf"{low}(?:\.0{{1,15}})?"
    parts = [rf"{low}\.[0-9]{{0,14}}[1-9]" if without_low else f"{low}{FRACTION}"]
    if high is None or high > low + 1:
        parts.append(_upwards(low + 1, None if high is None else high - 1) + FRACTION)
    if high is not None and not without_high:
        parts.append(rf"{high}(?:\.0{{1,15}})?")
    return any_of(parts)


def _upwards(low: int, high: int | None) -> str:
    """The whole numbers from `low`, which is not negative, to `high`."""
    if high is not None and low > high:
        return NONE
    digits = len(str(low))
    if high is None:
        return any_of([_padded(str(low), "9" * digits), rf"[1-9][0-9]{{{digits},}}"])
    parts = []
    while len(str(high)) > digits:
        parts.append(_padded(str(low), "9" * digits))
        low, digits = 10**digits, digits + 1
    return any_of([*parts, _padded(str(low), str(high))])


def _padded(low: str, high: str) -> str:
    """The digits from `low` to `high`, leading zeros and all."""
    if low == high:
        return low
    if len(low) == 1:
        return f"[{low}-{high}]"
    nines, zeros = "9" * (len(low) - 1), "0" * (len(low) - 1)
    if low[0] == high[0]:
        return low[0] + _padded(low[1:], high[1:])
    parts = []
    first, last = int(low[0]), int(high[0])
    if low[1:] != zeros:
        parts.append(low[0] + _padded(low[1:], nines))
        first += 1
    if high[1:] != nines:
        parts.append(high[0] + _padded(zeros, high[1:]))
        last -= 1
    if first <= last:
        parts.append(f"[{first}-{last}][0-9]{{{len(zeros)}}}")
    return any_of(parts)
