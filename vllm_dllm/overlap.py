"""Whether due passes go out in one step, or in two by turns, so that the host decides while the device computes."""

import math
import time
from collections.abc import Callable

from vllm_dllm.trend import Line

BUDGET = 0.01  # of the time, which trials of the other way may lose
ROUNDS = 4  # of all requests' passes: the length of a trial, and of the time until the next one, at least
STEPS = 20  # of the usual way that are timed before the other one is tried
SHARE = 0.05  # of the time that the host takes (or the device) below which there is nothing to gain
TRIALS = 3  # until the other way may become the usual one
CLEAR = 2  # standard errors by which turns must have gained until they become the usual way
MOST = 2  # times as slow, or fast, as expected: beyond, it was a pause of the machine's


class Overlap:
    """The choice, and in `auto` the clock behind it.

        together     host  | a b |     | a b |     | a b |            a, b: half of the requests each
                     device      | a b |     | a b |     | a b |
        by turns     host  | a | b | a | b | a | b |
                     device    | a | b | a | b | a |

    A step costs a device something however few passes it holds, and on a CPU both may want the same cores: whether it
    pays is measured, for about so many requests as there are. One way is the usual one, and a trial of the other is

        usual, usual, ... usual | other, other, other, other, back | usual, usual, ...

    in seconds, beside what the usual way takes for as many passes and tokens. An account pays for what that may lose: it
    earns BUDGET of the time and holds what one round takes. A trial begins when it is full, and empties it; it is broken
    off when it has lost more, and brings it back if it has won. So trials that lose are rare, whatever they lose, and
    those that win follow each other. There is none where the host, or the device, takes little of the time.
    """

    def __init__(self, choice: str, clock: Callable[[], float] = time.perf_counter):
        self.choice = choice  # auto, on, off
        self.by_turns = choice == "on"
        self.clock = clock
        self.loads: dict[int, _Load] = {}  # by the number of binary digits of the number of requests
        self.requests = 0  # as many as were there when this load began
        self.passes = 0  # that came back since a trial began or ended
        self.account = 0.0  # seconds
        self.trial: _Trial | None = None
        self.sent_at: float | None = None
        self.came_at: float | None = None

    def most(self, requests: int) -> int:
        """The passes of the next step, at most, where there are so many requests."""
        return -(-requests // 2) if self.by_turns and requests > 1 else requests

    def rest(self) -> None:
        """There was nothing to do: the time until the next step is nobody's."""
        self.sent_at = self.came_at = self.trial = None
        self.passes = 0
        if self.choice == "auto":
            self.by_turns = self._load.better

    def sent(self, alone: bool) -> None:
        """A step went out, `alone` if no other one was in flight."""
        if self.choice != "auto":
            return
        now = self.clock()
        if alone and not self.by_turns and self.came_at is not None:
            self._load.host.add(now - self.came_at)
        self.sent_at = now if alone else None

    def came(self, passes: int, tokens: int, requests: int, alone: bool) -> None:
        """A step's output came back: so many passes of so many requests that run; `alone` if no other is in flight."""
        if self.choice != "auto":
            return
        now, came_at = self.clock(), self.came_at
        if alone and not self.by_turns and self.sent_at is not None:
            self._load.device.add(now - self.sent_at)
        if abs(requests - self.requests) > self.requests // 4:
            self.requests = requests
            self.rest()
        elif came_at is not None:
            self._timed(passes, tokens, now - came_at, alone)
        self.sent_at, self.came_at = None, now

    def _timed(self, passes: int, tokens: int, seconds: float, alone: bool) -> None:
        """So many seconds since the last step came."""
        load, trial = self._load, self.trial
        self.passes += passes
        over = self.passes >= ROUNDS * self.requests
        if trial is None:
            load.timed(seconds, passes, tokens)
            most = load.usual.y * self.requests
            self.account = min(self.account + BUDGET * seconds, most)
            if over and self.account >= most and self.requests > 1 and load.worth_a_trial():
                self.trial, self.by_turns = _Trial(stake=most), not load.better
                self.account = 0.0
                self.passes = 0
            return
        expected = load.expected(passes, tokens)
        trial.expected += expected
        trial.seconds += min(seconds, MOST * expected + trial.stake)
        if over or trial.seconds - trial.expected > trial.stake:
            self.by_turns = load.better  # and on until the steps in flight are those that there usually are
        if self.by_turns == load.better and alone != load.better:
            self.account = trial.change()
            load.tried(trial)
            self.rest()

    @property
    def _load(self) -> "_Load":
        return self.loads.setdefault(self.requests.bit_length(), _Load())


class _Trial:
    """Some rounds of the other way."""

    def __init__(self, stake: float):
        self.stake = stake  # seconds that it may lose
        self.seconds = 0.0
        self.expected = 0.0  # seconds of the usual way for the same

    def change(self) -> float:
        """What the account gets for it."""
        lost = self.seconds - self.expected
        return self.stake if lost <= 0 else min(0.0, self.stake - lost)


class _Load:
    """What was measured with about so many requests."""

    def __init__(self) -> None:
        self.host, self.device = Line(10), Line(10)  # seconds of a step, where all go together
        self.better = False  # whether turns are
        self.usual = Line(64)  # of the better way: a pass's seconds by its tokens
        self.gain = Line(16)  # of turns over together: the logarithm of the ratio

    def expected(self, passes: int, tokens: int) -> float:
        """Seconds of the usual way."""
        return passes * max(self.usual.at(tokens / passes), 0.0)

    def timed(self, seconds: float, passes: int, tokens: int) -> None:
        """What they were."""
        if self.usual.count >= STEPS:
            seconds = min(seconds, MOST * self.expected(passes, tokens))  # a pause of the machine is no trend
        self.usual.add(seconds / passes, tokens / passes)

    def worth_a_trial(self) -> bool:
        host, device = self.host.y, self.device.y
        return self.usual.count >= STEPS and (self.better or min(host, device) > SHARE * (host + device))

    def tried(self, trial: _Trial) -> None:
        gain = math.log(min(max(trial.expected / trial.seconds, 1 / MOST), MOST))
        self.gain.add(-gain if self.better else gain)
        before = self.better
        if self.gain.count >= TRIALS:
            self.better = self.gain.y > (0 if before else CLEAR * self.gain.error)
        if self.better != before:
            self.usual = Line(64)
