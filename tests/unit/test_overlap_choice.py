"""Whether requests go by turns: what `dllm_overlap=auto` makes of measured times."""

from collections import deque

import pytest

from vllm_dllm.overlap import Overlap


class Machine:
    """A host that takes `host` seconds to decide a pass, and a device that takes `fixed + each * passes` for a step.

    `shared`: how much longer the device takes while the host has something to do, as where both want the same cores.
    """

    def __init__(self, choice: str, host: float, fixed: float, each: float, shared: float = 0.0):
        self.host, self.fixed, self.each, self.shared = host, fixed, each, shared
        self.now = 0.0
        self.overlap = Overlap(choice, lambda: self.now)
        self.passes = {False: 0, True: 0}  # by turns or not

    def run(self, requests: int, rounds: int) -> float:
        """Seconds for each pass of the last quarter of the rounds."""
        free, device, done = requests, self.now, 0
        steps: deque[tuple[int, float]] = deque()
        marks = []
        while done < rounds * requests:
            if not steps or (self.overlap.by_turns and free and len(steps) < 2):
                count = min(free, self.overlap.most(requests))
                self.now += self.host * count / 2
                steps.append((count, 0.0))
                self.overlap.sent(alone=len(steps) == 1)
                busy = (
                    self.fixed + self.each * count + (self.shared * self.host * count if self.overlap.by_turns else 0)
                )
                device = max(device, self.now) + busy
                steps[-1] = (count, device)
                free -= count
            else:
                count, at = steps[0]
                self.now = max(self.now, at)
                self.overlap.came(count, requests, alone=len(steps) == 1)
                steps.popleft()
                self.now += self.host * count / 2
                free += count
                done += count
                self.passes[self.overlap.by_turns] += count
                marks.append((done, self.now))
        first, begin = next(mark for mark in marks if mark[0] >= done * 3 / 4)
        return (self.now - begin) / (done - first)


PAYS = {"host": 1.0, "fixed": 1.0, "each": 1.0}
COSTS = {"host": 0.1, "fixed": 10.0, "each": 1.0}
SAME_CORES = {"host": 0.5, "fixed": 0.5, "each": 1.0, "shared": 2.0}


@pytest.mark.parametrize("machine", [PAYS, COSTS, SAME_CORES])
@pytest.mark.parametrize("requests", [2, 16, 64])
def test_auto_comes_close_to_the_better_way(machine, requests):
    """Trying the other way costs less than a twentieth."""
    one_way = {choice: Machine(choice, **machine).run(requests, 400) for choice in ("on", "off")}
    auto = Machine("auto", **machine)
    assert auto.run(requests, 2000) < 1.05 * min(one_way.values())
    assert auto.passes[one_way["on"] < one_way["off"]] > auto.passes[one_way["on"] > one_way["off"]]


def test_it_pays_in_one_case_and_costs_in_the_others():
    """Else the test above would show nothing."""
    for machine, better in [(PAYS, "on"), (COSTS, "off"), (SAME_CORES, "off")]:
        seconds = {choice: Machine(choice, **machine).run(64, 100) for choice in ("on", "off")}
        assert min(seconds, key=seconds.get) == better


def test_it_is_not_tried_where_the_device_hardly_waits():
    machine = Machine("auto", host=0.01, fixed=0.0, each=1.0)
    machine.run(16, 500)
    assert machine.passes[True] == 0


def test_another_number_of_requests_is_measured_anew():
    machine = Machine("auto", host=1.0, fixed=20.0, each=1.0)
    machine.run(64, 500)
    assert machine.overlap.by_turns, "the host's 64 seconds are more than the 20 of another step"
    machine.run(8, 500)
    assert not machine.overlap.by_turns
    machine.run(1, 50)
    assert not machine.overlap.by_turns
    machine.run(64, 50)
    assert machine.overlap.by_turns, "which was found before"


def test_time_with_nothing_to_do_is_not_measured():
    """Pauses of any length between runs change nothing."""
    machine = Machine("auto", **PAYS)
    for _ in range(60):
        machine.run(16, 25)
        machine.now += 1e6
        machine.overlap.rest()
    assert machine.overlap.by_turns
    assert 0 < machine.overlap.loads[(16).bit_length()].gain.value < 1


@pytest.mark.parametrize(("choice", "by_turns"), [("on", True), ("off", False)])
def test_on_and_off_measure_nothing(choice, by_turns):
    machine = Machine(choice, **PAYS)
    machine.run(16, 50)
    assert machine.passes[not by_turns] == 0 and not machine.overlap.loads
