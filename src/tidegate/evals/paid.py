"""Every call of a run goes through here: what is written down is not paid for again, and what is paid is counted."""

from __future__ import annotations

from tidegate.evals.budget import Budget
from tidegate.evals.journal import Journal, identity
from tidegate.ports import Caller, PromptAnswer, PromptCall


class PaidCaller:
    """Implements ports.Caller."""

    def __init__(self, caller: Caller, budget: Budget, journal: Journal | None) -> None:
        self._caller = caller
        self._budget = budget
        self._journal = journal

    async def call(self, call: PromptCall) -> PromptAnswer:
        """The journal's answer, or one that is in it before anyone sees it."""
        key = identity(call) if self._journal is not None else ""
        known = None if self._journal is None else self._journal.take(key)
        if known is not None:
            return known
        answer = await self._caller.call(call)
        if answer.error is None:
            self._budget.spend(answer.cost_nano_usd or 0)
            if self._journal is not None:
                self._journal.put(key, answer, own=call.origin == "eval" and not call.messages)
        return answer
