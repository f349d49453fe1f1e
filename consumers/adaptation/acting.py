"""What is decided here, or asked for elsewhere, is done; what will come of it is told to whoever decided."""

from morphogen.consumers.executor import Applied, Executor, Inbox
from morphogen.consumers.executor.bed import Say
from morphogen.consumers.policy import Decider
from morphogen.schemas import Action

from .offers import Offers
from .outcomes import Carried, Outcomes

WAIT = Action(op="wait")


class Acting:
    """Has the executor of one growth act; the outcomes keep which decision each act goes back to."""

    def __init__(self, executor: Executor, offers: Offers, outcomes: Outcomes, say: Say) -> None:
        self._executor, self._offers, self._outcomes, self._say = executor, offers, outcomes, say

    def decide(self, decider: Decider, cause: str | None) -> Action:
        """Ask the policy and the guards, and have done what they agree on; each step is an event, caused by the one before.

        Returns what was done, `wait` for nothing.
        """
        decided = decider.decide()
        for event in decided.events:
            cause = self._say(event, cause) or cause
        action = decided.action
        if action.op == "wait":
            return WAIT
        applied = self._executor.apply(action, decision=decided.decision, cause=cause)
        if not applied.done:
            return WAIT
        self._measure_blueprint(action, cause)
        self._outcomes.carried(
            Carried(
                decision=decided.decision,
                action=action,
                epoch=self._executor.epoch,
                seed=applied.seed,
                cause=cause,
                observation=decided.proposed.observation,
                index=decided.proposed.index,
                logprob=decided.proposed.logprob,
                value=decided.proposed.value,
                seen=decided.observation,
            )
        )
        return action

    def obey(self, inbox: Inbox, wait: float) -> Action:
        """Do what was asked for by commands, in their order; each is told what came of it.

        Waits up to `wait` seconds for the first of them. Returns the last that was done, `wait` for none.
        """
        done = WAIT
        for order in inbox.take(wait):
            try:
                applied = self._executor.apply(order.action, decision=order.decision, cause=order.cause)
            except BaseException:
                order.refused("the training loop was interrupted")
                raise
            if not applied.done:
                order.refused(applied.reason)
                continue
            if order.action.op != "wait":
                done = order.action
                self._measure_blueprint(order.action, order.cause)
                self._outcomes.carried(
                    Carried(
                        decision=order.decision or order.command,
                        action=order.action,
                        epoch=self._executor.epoch,
                        seed=applied.seed,
                        cause=order.cause,
                    )
                )
            order.done(self._told(applied))
        return done

    def _told(self, applied: Applied) -> dict[str, int | str | None]:
        stage = None if applied.slot is None else str(self._executor.slots[applied.slot].stage)
        return {"epoch": self._executor.epoch, "slot": applied.slot, "seed": applied.seed, "stage": stage}

    def _measure_blueprint(self, action: Action, cause: str | None) -> None:
        """Say what is true of a blueprint that was proposed, now that it stands."""
        slot = action.slot if action.op == "germinate" else None
        address = None if slot is None else self._executor.slots[slot].blueprint
        measured = None if address is None else self._offers.measured(address)
        if measured is not None:
            self._say(measured, cause)
