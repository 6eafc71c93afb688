"""
Limits and budgets in the memory of one process: rates, calls at once, and money, per key, prompt, model and in total.

What concerns a call – the scopes of its key, prompt and model – is looked up once for each mix of names and kept as
flat tuples. Everything is asked before anything is taken, without a pause in between: all scopes admit a call, or none
has taken anything from it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from tidegate.config import Budgets, Caps, Limit, Limits
from tidegate.core.budgets import WARN_PERCENT, Budget, BudgetState, Charge, Period
from tidegate.core.errors import BudgetExhausted, Saturated, TooLarge
from tidegate.core.instant import iso_utc
from tidegate.core.limits import Part, Rate
from tidegate.ports import Clock, Running

TOTAL = "total"
PERIODS: tuple[Period, ...] = ("hour", "day", "month")
MAX_MIXES = 4_096
RUNNING_RETRY_S = 1.0
"""Nobody knows when a running call ends."""
_AGAIN = f"Try again in {RUNNING_RETRY_S:.0f} s."
log = logging.getLogger("tidegate.gateway")

Spent = Mapping[str, Mapping[int, int]]
"""`key alice day` → start of a window → nano-USD."""


_Where = tuple[str, str]
"""Whose it is, and where it is configured: `key ann`, `limits.each_key.concurrent`."""


class _Slots:
    """Calls at once."""

    __slots__ = ("limit", "running", "where")

    def __init__(self, where: _Where, limit: int) -> None:
        self.where = where
        self.limit = limit
        self.running = 0


class _Scope:
    """All that is configured for one name."""

    __slots__ = ("budgets", "requests", "slots", "tokens")

    def __init__(self, kind: str, name: str, limits: Limits, budgets: Budgets, *, zone: ZoneInfo, spent: Spent) -> None:
        title = _title(kind, name)
        limit, caps = limits.of(kind, name) or Limit(), budgets.of(kind, name) or Caps()

        def where(field: str) -> _Where:
            return title, limits.path(kind, name, field)

        rpm, tpm, most = limit.requests_per_minute, limit.tokens_per_minute, limit.concurrent
        self.requests = None if rpm is None else (where("requests_per_minute"), Rate(rpm))
        self.tokens = None if tpm is None else (where("tokens_per_minute"), Rate(tpm))
        self.slots = None if most is None else _Slots(where("concurrent"), most)
        self.budgets = [
            Budget(
                title,
                period,
                nano_usd(cap),
                zone,
                spent.get(f"{title} {period}"),
                setting=budgets.path(kind, name, period),
            )
            for period in PERIODS
            if (cap := getattr(caps, period)) is not None
        ]


class _Mix:
    """What concerns calls of one key, prompt, route and path of models, as flat tuples."""

    __slots__ = ("budgets", "names", "requests", "slots", "tokens")

    def __init__(self, scopes: Iterable[_Scope], first: _Scope | None, models: Mapping[str, _Scope]) -> None:
        """
        Args:
            scopes: of the key, the prompt and the route, and the total.
            first: of the model that is called first: its rates count calls that begin with it.
            models: of all that may be called: the budget of each pays for what it answers.
        """
        scopes = list(scopes)
        rated = scopes if first is None else [*scopes, first]
        self.requests = tuple(scope.requests for scope in rated if scope.requests is not None)
        self.tokens = tuple(scope.tokens for scope in rated if scope.tokens is not None)
        self.slots = tuple(scope.slots for scope in rated if scope.slots is not None)
        paying = [("", scope) for scope in scopes] + [*models.items()]
        self.budgets = tuple((budget, _id(budget), only) for only, scope in paying for budget in scope.budgets)
        """With each its name, and the one model whose answers it pays for, or an empty text."""
        self.names = [name for _, name, _ in self.budgets]

    def ask(self, now: float, now_ns: int, tokens: int, nano: int) -> None:
        """Whether all of it has room for a call. Raises Saturated, TooLarge, BudgetExhausted."""
        for where, rate in self.requests:
            if not rate.has(now, 1):
                raise _too_many(where, rate, now, "requests", 1)
        for where, rate in self.tokens:
            if not rate.has(now, tokens):
                raise _too_many(where, rate, now, "tokens", tokens)
        for slots in self.slots:
            if slots.running >= slots.limit:
                whose, setting = slots.where
                message = f"{whose}: as many calls run at once as may ({setting}: {slots.limit}). {_AGAIN}"
                raise Saturated(message, retry_after_s=RUNNING_RETRY_S)
        for budget, _, _ in self.budgets:
            if not budget.start <= now_ns < budget.end:
                budget.turn(now_ns)
            if budget.spent + budget.reserved + nano > budget.cap or budget.spent >= budget.cap:
                raise _no_money(budget, nano)


class Hold(msgspec.Struct):
    """Implements ports.Hold."""

    meter: Meter
    mix: _Mix | None
    tokens: int
    parts: list[tuple[Rate, Part]]
    most: Charge | None
    place: Any = None

    def begin(self, said: bytes) -> bool:
        """Takes the call down before its first attempt; False when that can not be."""
        running = self.meter.running
        if running is not None:
            self.place = running.begin(said)
        return self.place is not None

    def end(self, *, recorded: bool) -> None:
        """After `settle`: the call's record was handed to the spool, which took it or not."""
        running = self.meter.running
        if running is not None and self.most is not None:
            place, self.place = self.place, None
            running.end(place, recorded=recorded)

    def settle(self, tokens: int, nano_usd: int | None, model: str | None) -> Charge | None:
        """Gives everything back; returns what is charged for it. A second time is a no-op."""
        meter, mix = self.meter, self.mix
        if mix is None:
            return None
        self.mix = None
        for slots in mix.slots:
            slots.running -= 1
        by = tokens - self.tokens
        if by and self.parts:
            now = meter.clock.monotonic()
            for rate, part in self.parts:
                rate.correct(part, now, by)
        if self.most is None:
            return None
        reserved = self.most[0]
        cost = reserved if nano_usd is None else nano_usd
        now_ns, payers = meter.clock.now_ns(), []
        for budget, name, only in mix.budgets:
            meter.changed.add(budget)
            pays = not only or only == model
            if pays:
                payers.append(name)
            if budget.charge(reserved, cost if pays else 0, now_ns):
                log.warning("%s: %d %% of the budget per %s are spent", budget.scope, WARN_PERCENT, budget.period)
            if nano_usd is None and not reserved:
                budget.unpriced += 1
        return (cost, payers) if cost else None


class Meter:
    """Implements ports.Admission. For the event loop's thread."""

    def __init__(
        self,
        limits: Limits,
        budgets: Budgets,
        *,
        zone: ZoneInfo,
        clock: Clock,
        spent: Spent | None = None,
        running: Running | None = None,
    ) -> None:
        """
        Args:
            spent: what earlier processes spent.
            running: where calls under a budget stand while they run; without it they can not begin.
        """
        self.clock = clock
        self.running = running
        self.changed: set[Budget] = set()
        """What was charged since `spent` was asked."""
        self._limits = limits
        self._budgets = budgets
        self._zone = zone
        self._spent = {name: dict(windows) for name, windows in (spent or {}).items()}
        self._scopes: dict[str, _Scope] = {}
        self._mixes: dict[tuple[str | None, str | None, str | None, tuple[str, ...]], _Mix] = {}
        for kind, name in (*limits.names(), *budgets.names(), *map(_named, self._spent)):
            self._scope(kind, name)

    def admit(
        self,
        *,
        key: str | None,
        prompt: str | None,
        route: str | None,
        models: tuple[str, ...],
        tokens: int,
        nano_usd: int,
    ) -> Hold:
        """Takes a call's part of every limit and budget that concerns it, or raises and has taken nothing."""
        names = (key, prompt, route, models)
        mix = self._mixes.get(names)
        if mix is None:
            mix = self._mix(*names)
        now = self.clock.monotonic()
        now_ns = self.clock.now_ns() if mix.budgets else 0
        mix.ask(now, now_ns, tokens, nano_usd)
        for _, rate in mix.requests:
            rate.take(now, 1)
        hold = Hold(self, mix, tokens, [], (nano_usd, mix.names) if mix.budgets else None)
        for _, rate in mix.tokens:
            hold.parts.append((rate, rate.take(now, tokens)))
        for slots in mix.slots:
            slots.running += 1
        for budget, _, _ in mix.budgets:
            budget.reserved += nano_usd
        return hold

    def budgets(self) -> list[BudgetState]:
        """Every budget as it stands; of keys those that were named, or have made calls."""
        now_ns = self.clock.now_ns()
        for budget in self._all():
            budget.turn(now_ns)
        return [budget.state() for budget in self._all()]

    def spent(self) -> dict[str, dict[int, int]]:
        """What another process has to know to go on; costs as much as changed since the last time."""
        self._spent.update({_id(budget): budget.windows for budget in self.changed})
        self.changed.clear()
        return dict(self._spent)

    def _all(self) -> list[Budget]:
        return [budget for scope in self._scopes.values() for budget in scope.budgets]

    def _mix(self, key: str | None, prompt: str | None, route: str | None, models: tuple[str, ...]) -> _Mix:
        if len(self._mixes) >= MAX_MIXES:
            self._mixes.clear()
        named = (("key", key), ("prompt", prompt), ("model", route))
        found = [self._scope(TOTAL, ""), *(self._scope(kind, name) for kind, name in named if name is not None)]
        priced = {name: scope for name in models if (scope := self._scope("model", name)) is not None}
        first = priced.get(models[0]) if models else None
        mix = _Mix([scope for scope in found if scope is not None], first, priced)
        self._mixes[key, prompt, route, models] = mix
        return mix

    def _scope(self, kind: str, name: str) -> _Scope | None:
        """What is configured for a name, made once; None where nothing is."""
        title = _title(kind, name)
        scope = self._scopes.get(title)
        if scope is None:
            if self._limits.of(kind, name) is None and self._budgets.of(kind, name) is None:
                return None
            scope = _Scope(kind, name, self._limits, self._budgets, zone=self._zone, spent=self._spent)
            self._scopes[title] = scope
        return scope


def _too_many(where: _Where, rate: Rate, now: float, unit: str, amount: int) -> Saturated | TooLarge:
    whose, setting = where
    if amount > rate.limit:
        return TooLarge(
            f"{whose}: this call may take {amount:,} {unit}, more than may be taken in a minute ({setting}:"
            f" {rate.limit}). Send less, bound the output lower, or raise that."
        )
    wait_s = rate.wait_s(now, amount)
    message = f"{whose}: the {unit} per minute are used up ({setting}: {rate.limit})."
    return Saturated(f"{message} Try again in {math.ceil(wait_s)} s.", retry_after_s=wait_s)


def _no_money(budget: Budget, nano: int) -> Saturated | BudgetExhausted:
    whose = f"{budget.scope}: the budget of ${usd(budget.cap)} per {budget.period} ({budget.setting})"
    if budget.spent + nano <= budget.cap and budget.spent < budget.cap:
        free = usd(budget.cap - budget.spent - budget.reserved)
        held = f"{whose} is held by calls that are running: ${free} are free, and this call may cost ${usd(nano)}."
        return Saturated(f"{held} {_AGAIN}", retry_after_s=RUNNING_RETRY_S)
    resets = f"begins anew at {iso_utc(budget.end)[:19]}Z"
    if budget.spent >= budget.cap:
        return BudgetExhausted(f"{whose} is used up. It {resets}; only a higher one lets calls through before.")
    left = usd(budget.cap - budget.spent)
    return BudgetExhausted(
        f"{whose} has ${left} left, and this call may cost ${usd(nano)}."
        f" Bound its output lower, or wait until the budget {resets}."
    )


def _title(kind: str, name: str) -> str:
    return f"{kind} {name}" if name else kind


def nano_usd(amount: Decimal) -> int:
    """US dollars → nano-USD."""
    return int(amount * 1_000_000_000)


def usd(nano: int) -> str:
    """Nano-USD → dollars, as exact as is needed to tell two apart."""
    return f"{Decimal(nano) / 1_000_000_000:.9f}".rstrip("0").rstrip(".") or "0"


def _named(budget: str) -> tuple[str, str]:
    """`key alice day` → key, alice."""
    kind, _, rest = budget.partition(" ")
    return kind, rest.rpartition(" ")[0]


def _id(budget: Budget) -> str:
    return f"{budget.scope} {budget.period}"
