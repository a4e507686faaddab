"""Pareto fronts: what no other beats at the same cost."""

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """The places of those that no other one beats or equals in cost (lower) and value (higher), the cheapest first.

    Of equal ones the first is kept.
    """
    front: list[int] = []
    for place in sorted(range(len(costs)), key=lambda place: (costs[place], -values[place], place)):
        if not front or values[place] > values[front[-1]]:
            front.append(place)
    return front
