"""Whether due passes go out in one step, or in two by turns, so that the host decides while the device computes."""

import math
import time
from collections.abc import Callable

ROUNDS = 8  # of all requests' passes that are timed at once
SHARE = 0.03  # of the time that a device waits for the host, below which there is nothing to gain
PATIENCE = (4, 64)  # timings until the other way is tried again: at first, and at most


class Overlap:
    """The choice, and in `auto` the clock behind it.

        together     host  | a b |     | a b |     | a b |            a, b: half of the requests each
                     device      | a b |     | a b |     | a b |
        by turns     host  | a | b | a | b | a | b |
                     device    | a | b | a | b | a |

    A step costs a device something however few passes it holds, and on a CPU both may want the same cores: whether it
    pays is measured, in seconds for each pass, one way and then the other, for about so many requests as there are. The
    better way stays until the other one is tried again, ever more rarely. It is not tried where the device hardly waits.
    """

    def __init__(self, choice: str, clock: Callable[[], float] = time.perf_counter):
        self.choice = choice  # auto, on, off
        self.by_turns = choice == "on"
        self.clock = clock
        self.loads: dict[int, _Load] = {}  # by the number of binary digits of the number of requests
        self.requests = 0  # when this timing began
        self.passes = 0  # that came back since
        self.began: float | None = None  # None: the first round, which is not timed
        self.sent_at: float | None = None
        self.came_at: float | None = None

    def most(self, requests: int) -> int:
        """The passes of the next step, at most, where there are so many requests."""
        return -(-requests // 2) if self.by_turns and requests > 1 else requests

    def rest(self) -> None:
        """There was nothing to do: what was timed until now is worth nothing."""
        self.began = self.sent_at = self.came_at = None
        self.passes = 0

    def sent(self, alone: bool) -> None:
        """A step went out, `alone` if no other one was in flight."""
        if self.choice != "auto":
            return
        now, came_at = self.clock(), self.came_at
        self.sent_at = now if alone else None
        if alone and came_at is not None:
            self._load.host.add(now - came_at)
        self.came_at = None

    def came(self, passes: int, requests: int, alone: bool) -> None:
        """A step's output came back: so many passes of so many requests that run; `alone` if no other is in flight."""
        if self.choice != "auto":
            return
        now = self.clock()
        if requests < 2:
            self.rest()
            self.requests, self.by_turns = requests, False
            return
        if abs(requests - self.requests) > self.requests // 4:
            self.rest()
            self.requests = requests
            self.by_turns = self._load.better
        elif alone and self.sent_at is not None:
            self._load.device.add(now - self.sent_at)
        self.sent_at, self.came_at = None, now if alone else None
        self.passes += passes
        if self.began is None and self.passes >= requests:
            self.began, self.passes = now, 0
        elif self.began is not None and self.passes >= ROUNDS * requests:
            self._load.timed(self.by_turns, (now - self.began) / self.passes)
            self.by_turns = self._load.next_way()
            self.began, self.passes = None, 0

    @property
    def _load(self) -> "_Load":
        return self.loads.setdefault(self.requests.bit_length(), _Load())


class _Mean:
    """A running mean, of the last ten or so."""

    def __init__(self) -> None:
        self.count, self.value = 0, 0.0

    def add(self, value: float) -> None:
        self.count = min(self.count + 1, 10)
        self.value += (value - self.value) / self.count


class _Load:
    """What was measured with about so many requests."""

    def __init__(self) -> None:
        self.host, self.device = _Mean(), _Mean()  # seconds of a step, where all go together
        self.better = False  # whether turns are
        self.gain = _Mean()  # of turns over together: the logarithm of the ratio
        self.seconds: dict[bool, float] = {}  # for each pass, of each way as it was timed last
        self.patience = PATIENCE[0]
        self.left = 1  # timings of the better way until the other one is tried

    def timed(self, by_turns: bool, seconds: float) -> None:
        self.seconds[by_turns] = seconds
        if len(self.seconds) < 2:
            return
        self.gain.add(math.log(self.seconds[False] / self.seconds[True]))
        self.seconds.clear()
        before, self.better = self.better, self.gain.value > 0
        self.patience = PATIENCE[0] if self.better != before else min(2 * self.patience, PATIENCE[1])
        self.left = self.patience

    def next_way(self) -> bool:
        """Whether the passes that are timed next go by turns."""
        self.left -= 1
        waits = self.host.value > SHARE * (self.host.value + self.device.value)
        return self.better if self.left >= 0 or not (waits or self.better) else not self.better
