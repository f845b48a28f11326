"""What numbers are lately."""

import math


class Line:
    """The straight line through what came last, weighted by how long ago that was; without x a mean."""

    def __init__(self, memory: int):
        self.memory = memory
        self.count = 0
        self.x, self.y = 0.0, 0.0  # means
        self.xx, self.xy, self.yy = 0.0, 0.0, 0.0  # and what is around them

    def add(self, y: float, x: float = 0.0) -> None:
        self.count += 1
        weight = 1 / min(self.count, self.memory)
        dx, dy = x - self.x, y - self.y
        self.x += weight * dx
        self.y += weight * dy
        self.xx += weight * ((1 - weight) * dx * dx - self.xx)
        self.xy += weight * ((1 - weight) * dx * dy - self.xy)
        self.yy += weight * ((1 - weight) * dy * dy - self.yy)

    def at(self, x: float) -> float:
        slope = self.xy / self.xx if self.xx else 0.0
        return self.y + max(slope, 0.0) * (x - self.x)

    @property
    def error(self) -> float:
        """Of the mean, its standard error."""
        return math.sqrt(self.yy / max(min(self.count, self.memory) - 1, 1))
