"""A robot that carries out its planned day, with recourse where its battery needs it.

It does the planned steps in order and leaves the depot as soon as it may: with its
goods, reloaded and charged. What it decides on its own:

- It charges up to the planned level, or to what the steps up to the next charge need
  with a margin (`Needs`), if that is more.
- A charge is left out if the robot would arrive with the level with which it is
  planned to leave, and if that carries it to the charge after.
- Before each leg it asks whether its level carries it to its next charge, or else
  through the next step and from there to a charger. If neither, it first drives to the
  nearest station that it reaches and charges what it needs.

The reserve is for bad luck on the way: a robot that falls below it goes on. One whose
battery is empty is stranded: it stays where it is, and its requests are not served.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from wardwise.fleet.energy import HOUR_S, Recharge
from wardwise.fleet.facts import Deed, Fact, Ride
from wardwise.fleet.plan import Charge, Stop, Trip
from wardwise.fleet.simulate.battery import BatteryTwin
from wardwise.fleet.simulate.plan_steps import DEPOT, Needs, PlanStep, StepKind

if TYPE_CHECKING:
    from collections.abc import Generator

    import simpy

    from wardwise.fleet.energy import ChargeCurve
    from wardwise.fleet.problem import Robot, Station
    from wardwise.fleet.simulate.plan_day import PlanWorld
    from wardwise.fleet.simulate.plan_ways import Piece

    Process = Generator[simpy.Event, Any, None]


class Act(StrEnum):
    """What a robot did; ``skip``: it left a charge out, ``detour``: it put one in."""

    DEPART = "depart"
    ARRIVE = "arrive"
    START = "start"
    END = "end"
    CHARGE = "charge"
    CHARGED = "charged"
    SKIP = "skip"
    DETOUR = "detour"
    RETURN = "return"
    STRANDED = "stranded"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Something that a robot did, and what its battery held then.

    `subject` is the request or station it was about; `level_wh` is `None` for a robot
    without a battery.
    """

    now_s: float
    robot: str
    act: Act
    place: str
    subject: str | None = None
    level_wh: float | None = None


class _EmptyBatteryError(Exception):
    """The battery is empty."""


class PlanRobot:
    """One robot and its steps; `live` is its process.

    Attributes
    ----------
    trips
        What it has driven, with measured times.
    battery
        `None` for a robot without one.
    """

    def __init__(self, world: PlanWorld, robot: Robot, steps: list[PlanStep]) -> None:
        self.world, self.robot, self.steps = world, robot, steps
        self.battery = BatteryTwin(robot.battery) if robot.battery else None
        self.trips: list[Trip] = []
        self.is_stranded = False
        self.num_detours = self.num_skips = 0
        self._needs = (
            Needs(world.instance, world.ways.legs, robot.battery) if robot.battery else None
        )
        self._here = DEPOT
        self._ready_s = robot.start_s
        self._depart_s = robot.start_s
        self._has_left = False
        self._stops: list[Stop] = []
        self._charges: list[Charge] = []

    def live(self) -> Process:
        """Do all steps, or as many as the battery allows."""
        yield self.world.env.timeout(self.robot.start_s)
        try:
            for number in range(len(self.steps)):
                yield from self._do(number)
        except _EmptyBatteryError:
            self.is_stranded = True
            self._note(Act.STRANDED)
            self._close(is_broken_off=True)

    def _do(self, number: int) -> Process:
        step, env = self.steps[number], self.world.env
        if step.kind is StepKind.DEPART:
            yield from self._spend(max(0.0, self._ready_s - env.now, step.earliest_s - env.now))
            self._depart_s = env.now
            self._note(Act.DEPART)
            return
        if step.kind is StepKind.CHARGE and self._can_skip(number):
            self.num_skips += 1
            assert step.station is not None
            self._note(Act.SKIP, step.station.id)
            return
        yield from self._detour(number)
        if step.kind is StepKind.STOP:
            assert step.request is not None
            key = (step.request.id, int(step.is_pickup))
            yield from self._drive(step.place, *key, request=step.request.id)
            yield from self._serve(step)
        elif step.kind is StepKind.CHARGE:
            assert step.station is not None
            yield from self._drive(step.place, self.robot.id, step.trip, number, 3)
            yield from self._charge(step.station, step.after_wh, number + 1)
        else:
            yield from self._drive(DEPOT, self.robot.id, step.trip, 2, end=Deed.RETURN)
            self._note(Act.RETURN)
            self._ready_s = env.now + step.dwell_s
            self._close(is_broken_off=False)

    def _serve(self, step: PlanStep) -> Process:
        env, request = self.world.env, step.request
        assert request is not None
        self._note(Act.ARRIVE, request.id)
        arrive_s = env.now
        yield from self._spend(max(0.0, step.earliest_s - arrive_s))
        self._note(Act.START, request.id)
        self._tell(Deed.START, self._here, request.id)
        self._stops.append(
            Stop(request=request.id, arrive_s=arrive_s, start_s=env.now, is_pickup=step.is_pickup)
        )
        key = request.id, int(step.is_pickup)
        yield from self._spend(self.world.ways.service_s(step.dwell_s, *key))
        self._note(Act.END, request.id)
        self._tell(Deed.END, self._here, request.id)

    def _charge(self, station: Station, least_wh: float, number: int) -> Process:
        """Queue for a slot and charge up to a level, or what the steps from one on need."""
        arrive_s = self.world.env.now
        slots = self.world.slots[station.id]
        if slots is None:
            yield from self._plug(station, least_wh, number, arrive_s)
            return
        with slots.request() as turn:
            yield from self._queue(turn)
            yield from self._plug(station, least_wh, number, arrive_s)

    def _plug(self, station: Station, least_wh: float, number: int, arrive_s: float) -> Process:
        """Charge in a slot."""
        env, battery = self.world.env, self.battery
        assert battery is not None
        assert station.charge is not None
        start_s = env.now
        self._note(Act.CHARGE, station.id)
        after_wh = self._target_wh(station.charge, least_wh, number)
        charged_wh = after_wh - battery.level_wh
        yield env.timeout(station.charge.time_s(battery.level_wh, after_wh))
        battery.charge(charged_wh)
        charge = Charge(
            station=station.id,
            before=len(self._stops),
            arrive_s=arrive_s,
            start_s=start_s,
            end_s=env.now,
            charged_wh=charged_wh,
        )
        self._charges.append(charge)
        self.world.charges.append((self.robot.id, charge))
        self._note(Act.CHARGED, station.id)

    def _can_skip(self, number: int) -> bool:
        """Whether the robot would come with what it is planned to leave with."""
        step, battery, needs = self.steps[number], self.battery, self._needs
        assert battery is not None
        assert needs is not None
        assert step.station is not None
        if step.charged_wh <= battery.slack_wh:
            return False
        arrive_wh = battery.level_wh - needs.leg_wh(self._here, step.station)
        return arrive_wh >= step.after_wh - battery.slack_wh and self._reaches(
            needs.along(self.world.env.now, self._here, self.steps[number + 1 :])
        )

    def _detour(self, number: int) -> Process:
        """Charge on the way if the level would not do."""
        battery, needs, now_s = self.battery, self._needs, self.world.env.now
        if battery is None or needs is None:
            return
        ahead = self.steps[number:]
        if self._reaches(needs.along(now_s, self._here, ahead)) or self._reaches(
            needs.next_and_charger(now_s, self._here, ahead[0])
        ):
            return
        within = [
            (needs.leg_wh(self._here, station), index)
            for index, station in enumerate(needs.chargers)
            if self._reaches(needs.leg_wh(self._here, station))
        ]
        if not within:
            return
        station = needs.chargers[min(within)[1]]
        place = self.world.instance.place_index[station.place]
        if place == self._here and battery.level_wh >= battery.battery.capacity_wh:
            return
        self.num_detours += 1
        self._note(Act.DETOUR, station.id)
        yield from self._drive(place, self.robot.id, self.num_detours, 0, 4)
        is_at_depot = self._here == DEPOT and not self._stops and not self._has_left
        yield from self._charge(station, 0.0, number)
        if is_at_depot:
            self._depart_s = self.world.env.now

    def _target_wh(self, curve: ChargeCurve, least_wh: float, number: int) -> float:
        """Level up to which to charge now: what is wanted at least, or what lies ahead."""
        battery, needs, now_s = self.battery, self._needs, self.world.env.now
        assert battery is not None
        assert needs is not None
        level_wh, full_wh = battery.level_wh, battery.battery.capacity_wh
        if self.world.instance.recharge is Recharge.FULL:
            return max(level_wh, full_wh)
        least_wh = max(level_wh, min(least_wh, full_wh))
        # A robot does not draw while it charges, and has less to wait for afterwards.
        end_s = now_s + curve.time_s(level_wh, least_wh)
        need_wh = needs.along(end_s, self._here, self.steps[number:], self._ready_s)
        return max(least_wh, min(battery.battery.reserve_wh + need_wh, full_wh))

    def _reaches(self, need_wh: float) -> bool:
        """Whether the level allows for a need without touching the reserve."""
        battery = self.battery
        assert battery is not None
        return battery.level_wh - need_wh >= battery.battery.reserve_wh - battery.slack_wh

    def _drive(
        self, there: int, *key: str | int, request: str | None = None, end: Deed = Deed.ARRIVE
    ) -> Process:
        self._has_left = self._has_left or there != DEPOT
        self._tell(Deed.DEPART, there, request)
        for piece in self.world.ways.leg(self._here, there, *key):
            seconds = piece.drive_s + piece.wait_s + piece.fixed_s
            if piece.door is None:
                yield from self._spend(seconds, piece.metres)
                continue
            come_s = self.world.env.now
            with self.world.doors[piece.door].request() as turn:
                yield from self._queue(turn)
                turn_s = self.world.env.now
                yield from self._spend(seconds, piece.metres)
            if piece.lift is not None:
                self._tell_ride(piece, come_s, turn_s)
        self._here = there
        self._tell(end, there, request)

    def _spend(self, seconds: float, metres: float = 0.0) -> Process:
        """Let time pass and energy flow, both evenly."""
        env, battery = self.world.env, self.battery
        if battery is None:
            yield env.timeout(seconds)
            return
        kind = battery.battery
        energy_wh = kind.wh_per_m * metres + kind.base_w * seconds / HOUR_S
        if energy_wh > battery.level_wh + battery.slack_wh:
            left_wh = max(battery.level_wh, 0.0)
            yield env.timeout(seconds * left_wh / energy_wh)
            battery.draw(left_wh)
            raise _EmptyBatteryError
        yield env.timeout(seconds)
        battery.draw(energy_wh)

    def _queue(self, turn: simpy.Event) -> Process:
        """Wait for a turn as long as the battery lasts."""
        env, battery = self.world.env, self.battery
        base_w = battery.battery.base_w if battery else 0.0
        if battery is None or base_w == 0:
            yield turn
            return
        since_s, left_wh = env.now, max(battery.level_wh, 0.0)
        yield turn | env.timeout(left_wh * HOUR_S / base_w)
        battery.draw(min(left_wh, base_w * (env.now - since_s) / HOUR_S))
        if not turn.triggered:
            raise _EmptyBatteryError

    def _close(self, *, is_broken_off: bool) -> None:
        """Book a trip; one without a stop is none."""
        if self._stops:
            self.trips.append(
                Trip(
                    robot=self.robot.id,
                    depart_s=self._depart_s,
                    stops=tuple(self._stops),
                    return_s=self.world.env.now,
                    is_broken_off=is_broken_off,
                    charges=tuple(self._charges),
                )
            )
        self._has_left, self._stops, self._charges = False, [], []

    def _tell(self, deed: Deed, place: int, request: str | None) -> None:
        id_ = self.world.instance.places[place].id
        self.world.facts.append(
            Fact(
                now_s=self.world.env.now, robot=self.robot.id, deed=deed, place=id_, request=request
            )
        )

    def _tell_ride(self, piece: Piece, come_s: float, turn_s: float) -> None:
        assert piece.lift is not None
        elevator, floor, target = piece.lift
        self.world.rides.append(
            Ride(
                robot=self.robot.id,
                elevator=elevator,
                floor=floor,
                target=target,
                come_s=come_s,
                turn_s=turn_s,
                board_s=turn_s + piece.wait_s,
                leave_s=max(self.world.env.now, turn_s + piece.wait_s),
            )
        )

    def _note(self, act: Act, subject: str | None = None) -> None:
        level_wh = self.battery.level_wh if self.battery else None
        self.world.readings.append(
            Reading(
                now_s=self.world.env.now,
                robot=self.robot.id,
                act=act,
                place=self.world.instance.places[self._here].id,
                subject=subject,
                level_wh=level_wh,
            )
        )
