"""A robot as a process: it does what the dispatcher says, and says where it differs.

It leaves when the dispatcher's plan has it leave, which is the moment at which the
dispatcher itself takes the departure for committed. From then on the dispatcher
believes in a moment of arrival, and later in one at which service ends. A robot that
is early reports when it is; one that is late reports at the last instant before the
believed moment passes, so that no belief is ever wrong. How long it will still take
it knows while it drives; before and inside an elevator it can only guess, and reports
again when the guess was too short.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from wardwise.fleet.dispatch import Breakdown, Delay, Return, Step
from wardwise.fleet.dispatch.state import clock
from wardwise.fleet.facts import Deed, Fact, Ride
from wardwise.fleet.search.packed import QUANTA_PER_UNIT
from wardwise.fleet.simulate.disturbances import Source
from wardwise.fleet.simulate.ways import Drive, Lift

if TYPE_CHECKING:
    from collections.abc import Generator

    import simpy

    from wardwise.fleet.simulate.world import World

    Process = Generator[simpy.Event, Any, None]

# The last instant before a moment: the dispatcher's clock counts in these.
TICK_S = 1 / QUANTA_PER_UNIT
# By how much, at least, a robot that does not know when it arrives expects to be late.
LEAST_GUESS_S = 1.0
# Third part of the key of a way home, where one to a request says whether it is a pickup.
HOME = 2


class RobotTwin:
    """One robot; `live` is its process.

    Attributes
    ----------
    position
        Of its day, as the dispatcher counts: where it is or under way to.
    place
        Where it was last.
    has_stopped
        Whether it reached a stop on this trip.
    endurance_s
        Driving time until it breaks down.
    piece_end_s, left_s
        While it is under way: when it will have passed the present piece of the way,
        `None` until it knows, and the mean time of what follows.
    """

    def __init__(self, world: World, id_: str) -> None:
        self.world = world
        self.id = id_
        self.position = 0
        self.place = world.depot
        self.has_stopped = False
        self.num_failures = 0
        self.endurance_s = self._draw_endurance()
        self.piece_end_s: float | None = None
        self.left_s = 0.0
        self._awaited: Step | None = None
        self._changed: simpy.Event | None = None

    def live(self) -> Process:
        """Do one thing after the other, as long as there is something to do."""
        env = self.world.env
        while True:
            step = self._step(self.position + 1)
            while step is None or step.depart_s > env.now:
                self._awaited, self._changed = step, env.event()
                if step is None:
                    yield self._changed
                else:
                    yield self._changed | env.timeout(step.depart_s - env.now)
                step = self._step(self.position + 1)
            self._changed = None
            yield from self._visit(step)

    def look(self) -> None:
        """Look at the plan after an event, and wake up if what comes next has changed."""
        changed = self._changed
        if changed is None or changed.triggered:
            return
        if self._step(self.position + 1) != self._awaited:
            changed.succeed()

    def _visit(self, step: Step) -> Process:
        """Drive to a stop and serve it, or home."""
        world, log = self.world, self.world.log
        depart_s = world.env.now
        assert step.depart_s == depart_s, f"robot {self.id!r} is too late to leave"
        self._note(Deed.DEPART, step)
        if not self.has_stopped:
            log.departures[self.id, self.position] = depart_s
        self.position += 1
        is_broken = yield from self._travel(step)
        log.busy_s[self.id] += world.env.now - depart_s
        if is_broken:
            yield from self._break_down(step)
            return
        self.place = step.place
        if step.request is None:
            self._come_home(step)
        else:
            yield from self._serve(step)

    def _travel(self, step: Step) -> Generator[simpy.Event, Any, bool]:
        """Be under way; returns whether the robot broke down."""
        env = self.world.env
        move = env.process(self._move(step))
        while True:
            start_s = self._here().start_s
            yield move | env.timeout(max(0.0, start_s - TICK_S - env.now))
            if move.triggered:
                return bool(move.value)
            expected_s = self._expected_s()
            if expected_s <= start_s:  # it arrives in this very instant
                yield move
                return bool(move.value)
            self._report(expected_s - start_s)

    def _expected_s(self) -> float:
        """When the robot expects to arrive."""
        if self.piece_end_s is None:
            return self.world.env.now + max(self.left_s, LEAST_GUESS_S)
        if self.left_s > 0:
            return self.piece_end_s + max(self.left_s, LEAST_GUESS_S)
        return self.piece_end_s

    def _move(self, step: Step) -> Generator[simpy.Event, Any, bool]:
        """Pass all pieces of a way; returns whether the robot broke down."""
        if step.request is None:
            key: tuple[str | int, ...] = (self.id, self.position, HOME)
        else:
            key = (step.request, int(step.is_pickup))
        pieces = self.world.ways.pieces(self.place, step.place)
        for number, piece in enumerate(pieces):
            self.left_s = math.fsum(later.mean_s for later in pieces[number + 1 :])
            if isinstance(piece, Lift):
                yield from self._ride(piece, (*key, number))
            elif (yield from self._drive(piece, (*key, number))):
                return True
        return False

    def _drive(self, piece: Drive, key: tuple[str | int, ...]) -> Generator[simpy.Event, Any, bool]:
        """Drive; returns whether the robot broke down."""
        env, luck = self.world.env, self.world.luck
        drive_s = clock(luck.duration(piece.mean_s, piece.variance_s2, Source.TRAVEL, *key))
        self.piece_end_s = env.now + drive_s
        if drive_s > self.endurance_s:
            yield env.timeout(clock(self.endurance_s))
            return True
        yield env.timeout(drive_s)
        self.endurance_s -= drive_s
        return False

    def _ride(self, lift: Lift, key: tuple[str | int, ...]) -> Process:
        """Queue for an elevator, wait for its cabin, and ride."""
        world, env, elevator = self.world, self.world.env, lift.elevator
        come_s, after_s = env.now, self.left_s
        self.piece_end_s, self.left_s = None, lift.mean_s + after_s
        with world.cabins[elevator.id].request() as turn:
            yield turn
            turn_s = env.now
            mean_s, variance = elevator.wait_mean_s, elevator.wait_sd_s**2
            yield env.timeout(clock(world.luck.duration(mean_s, variance, Source.ELEVATOR, *key)))
            board_s, ride_s = env.now, clock(lift.ride_s)
            self.piece_end_s, self.left_s = board_s + ride_s, after_s
            yield env.timeout(ride_s)
        ride = Ride(
            robot=self.id,
            elevator=elevator.id,
            floor=lift.floor,
            target=lift.target,
            come_s=come_s,
            turn_s=turn_s,
            board_s=board_s,
            leave_s=env.now,
        )
        world.log.rides.append(ride)

    def _come_home(self, step: Step) -> None:
        now_s = self.world.env.now
        self.has_stopped = False
        self.world.log.returns[self.id, self.position] = now_s
        self._note(Deed.RETURN, step)
        planned_s = self._here().start_s
        if now_s < planned_s:
            self._report(now_s - planned_s)

    def _serve(self, step: Step) -> Process:
        """Wait for the window, and hand over."""
        world, env = self.world, self.world.env
        self.has_stopped = True
        self._note(Deed.ARRIVE, step)
        arrive_s, planned = env.now, self._here()
        start_s = max(arrive_s, planned.earliest_s)
        if start_s < planned.start_s:
            self._report(start_s - planned.start_s)
        yield env.timeout(start_s - arrive_s)
        world.log.stops[self.id, self.position] = arrive_s, start_s
        self._note(Deed.START, step)
        assert step.request is not None
        if not step.is_pickup:
            world.log.served.add(step.request)
        mean_s = step.end_s - step.start_s
        variance = (world.disturbances.service_cv * mean_s) ** 2
        key = (step.request, int(step.is_pickup))
        service_s = clock(world.luck.duration(mean_s, variance, Source.SERVICE, *key))
        late_s = service_s - mean_s
        if late_s > 0:
            yield env.timeout(mean_s - TICK_S)
            self._report(late_s)
            yield env.timeout(late_s + TICK_S)
        else:
            yield env.timeout(service_s)
            if late_s < 0:
                self._report(late_s)
        world.log.busy_s[self.id] += service_s
        self._note(Deed.END, step)

    def _break_down(self, step: Step) -> Process:
        """Stand still until people have brought the robot to the depot and repaired it."""
        world, env = self.world, self.world.env
        self._note(Deed.BREAK_DOWN, step)
        if self.has_stopped:
            world.log.returns[self.id, self.position] = env.now
        else:
            self.position -= 1  # to the dispatcher this trip never began
        world.hear(Breakdown(now_s=env.now, robot=self.id))
        repair_s = world.luck.exponential(
            world.disturbances.repair_s, Source.REPAIR, self.id, self.num_failures
        )
        yield env.timeout(clock(repair_s))
        self.num_failures += 1
        self.endurance_s = self._draw_endurance()
        self.place, self.has_stopped = world.depot, False
        world.log.facts.append(
            Fact(now_s=env.now, robot=self.id, deed=Deed.REPAIRED, place=self.place)
        )
        world.hear(Return(now_s=env.now, robot=self.id))

    def _draw_endurance(self) -> float:
        mean_s = self.world.disturbances.driving_s_per_failure
        return self.world.luck.exponential(mean_s, Source.FAILURE, self.id, self.num_failures)

    def _step(self, position: int) -> Step | None:
        return self.world.dispatcher.step(self.id, position)

    def _here(self) -> Step:
        """The present position as the dispatcher believes it to be."""
        step = self._step(self.position)
        assert step is not None
        return step

    def _report(self, delay_s: float) -> None:
        self.world.hear(Delay(now_s=self.world.env.now, robot=self.id, delay_s=delay_s))

    def _note(self, deed: Deed, step: Step) -> None:
        self.world.log.facts.append(
            Fact(
                now_s=self.world.env.now,
                robot=self.id,
                deed=deed,
                place=step.place,
                request=step.request,
            )
        )
