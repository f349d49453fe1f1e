"""The shell of growth: what is held by a training loop, and the order of things at the end of an epoch."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from torch import nn

from morphogen.consumers.executor import (
    Bounds,
    Evaluate,
    Executor,
    ExecutorError,
    Inbox,
    Menu,
    Stock,
    stock,
)
from morphogen.consumers.executor.executor import EVALUATE
from morphogen.consumers.policy import (
    Decider,
    Limits,
    Policy,
    Weights,
    load_policy,
)
from morphogen.consumers.policy.identity import name_of
from morphogen.consumers.policy.limits import checked, checked_weights
from morphogen.kernels.slots import Evaluation, evaluation
from morphogen.kernels.slots.undisturbed import undisturbed
from morphogen.schemas import (
    Action,
    AdaptationFinished,
    Event,
    SiteInfo,
    line_of,
    sound,
)

from .acting import WAIT, Acting
from .beginning import beginning
from .claims import claim, release, unclaimed
from .config import GrowthConfig, converted
from .epochs import Epochs
from .errors import GrowthError
from .given import joinable, number, stepping, strange, text, whole
from .judging import Judging
from .link import Link
from .offers import Offers, offers
from .places import placed
from .recorder import Recorder
from .shadow import Shadow

REMOTE = "remote"
PROPOSED = "proposed"

_log = logging.getLogger("morphogen")


class Grower:
    """Growth of one model in one run; made by `grow`. Call `epoch` after each epoch, `finish` at the end.

    Neither raises: what goes wrong is in the log, and the training goes on without growth if need be.
    """

    def __init__(
        self,
        run: Recorder,
        model: nn.Module,
        optimizer: Any,
        *,
        policy: Any,
        evaluate: Evaluate | None,
        sites: Any,
        slots: int,
        every: int,
        budget: Limits | Mapping[str, Any] | None,
        config: GrowthConfig | Mapping[str, Any] | None,
        reward: Mapping[str, float] | None,
        seed: int,
        label: str | None,
        menu: Menu | Literal["proposed"],
        example: Any,
    ) -> None:
        if not callable(getattr(run, "event", None)):
            raise GrowthError(f"a run is expected, not a {type(run).__name__}: pass what morphogen.record() returned")
        unclaimed(run)
        every, seed = whole(every, "every", least=1), whole(seed, "seed", least=0)
        if evaluate is not None and not callable(evaluate):
            raise GrowthError(
                f"evaluate is a function of the model that returns loss and accuracy, not {evaluate!r:.100}"
            )
        label = text(label, "a label")
        self.config = converted(config, GrowthConfig, "config")
        self.limits = checked(converted(budget, Limits, "budget"))
        weights = checked_weights(converted(reward, Weights, "reward"))
        self._optimizer = stepping(optimizer)
        self._remote = isinstance(policy, str) and policy == REMOTE
        self._policy: Policy = load_policy("none" if self._remote else policy, seed=seed)
        self._policy_name = REMOTE if self._remote else name_of(self._policy)
        if self._policy_name != "none":
            joinable(self._optimizer)
        self._evaluate, self._every = evaluate, every
        self._seed, self._label, self._menu = seed, label, menu
        self._weights = weights
        self._offers = Offers()
        self._offered(())  # a menu that is none is refused now, not when the shapes are known
        self.model, self.slots = model, placed(model, sites, slots, example=example, config=self.config)
        if self._policy_name != "none" and strange(self._optimizer, model):
            _log.warning(
                "growth: the optimizer holds no parameter of the model: what grows is trained by it, and the model only if "
                "it holds copies of its weights; else pass the one that trains it, made after the model was"
            )
        self._executor: Executor | None = None
        self._judging = Judging(self._policy, self._policy_name, self._say)
        self._epochs = Epochs(self.slots, self._optimizer, self.config)
        self._failures = 0
        self._off = self._over = False
        self._inbox: Inbox | None = None
        self._link = Link(run, self._run_ends)
        claim(run)
        try:
            self._inbox = self._open_inbox(run) if self._remote else None
            shadow = Shadow(self.slots, evaluate, self.config) if self.config.dry_run and evaluate is not None else None
            self._shadow = shadow
            self._decider = Decider(
                self._policy,
                scope=self._link.name,
                clock=time.perf_counter_ns,
                dry_run=None if shadow is None else shadow.trouble,
            )
            self._link.pace()
            if all(site.in_shape is not None for site in self.slots.sites):
                self._begin()
        except BaseException:
            self._close()
            raise

    # What a training loop calls

    def epoch(
        self,
        *,
        train_loss: float | None = None,
        val_loss: float | None = None,
        val_accuracy: float | None = None,
    ) -> Action:
        """Tell that an epoch has ended; return what was done to the network, `wait` for nothing.

        What is not given of the validation is measured by `evaluate`, where there is one.
        """
        done = WAIT
        if self._off or self._over:
            return done
        try:
            done = self._end_of_epoch(number(train_loss), number(val_loss), number(val_accuracy))
        except Exception as error:  # noqa: BLE001  a training loop is not to die of its growth
            self._failed(error)
        return done

    def finish(self, **measured: float) -> None:
        """End the growth: judge what still grows, and record what it came to; idempotent.

        A seed that is holding is kept if it passes its gate; one that has no say yet, or was measured to be of no use,
        goes. `measured` are numbers to record with it, by name, such as the accuracy on the test set. A run that ends
        without this call has its seeds left as they are, and nothing is measured any more.
        """
        self._finish(measured, measure=True)

    def _finish(self, measured: Mapping[str, Any], *, measure: bool) -> None:
        if self._over:
            return
        self._over = True
        try:
            numbers = {sound(name): found for name, value in measured.items() if (found := number(value)) is not None}
            self._end(numbers, measure=measure)
        except Exception as error:  # noqa: BLE001
            self._failed(error)
        finally:
            self._close()

    @property
    def policy(self) -> Policy:
        """The policy that decides."""
        return self._policy

    @property
    def epochs(self) -> int:
        """Epochs so far."""
        return len(self._epochs)

    @property
    def params_grown(self) -> int:
        """Parameters of all that stands now."""
        return self.slots.params()

    def __repr__(self) -> str:
        return f"<grower {self._policy_name} epoch={self.epochs} grown={self.params_grown}>"

    # The order of things

    def _offered(self, sites: Sequence[SiteInfo]) -> Stock:
        """Return what may be germinated at these sites."""
        proposed = isinstance(self._menu, str) and self._menu == PROPOSED
        if proposed and sites:
            self._offers = offers(sites, self.limits, self._seed)
        try:
            return stock(sites, self._offers.at if proposed else self._menu)
        except ExecutorError as error:
            raise GrowthError(str(error)) from error

    def _begin(self) -> Executor:
        """Say where and within what limits this run may grow; once the shapes at its sites are known."""
        if self._executor is not None:
            return self._executor
        offered = self._offered(list(self.slots.sites))
        started = beginning(
            self.slots,
            offered,
            self._policy,
            name=self._policy_name,
            limits=self.limits,
            weights=self._weights,
            config=self.config,
            every=self._every,
            seed=self._seed,
            label=self._label,
        )
        if self._shadow is not None:
            self._shadow.stock = offered
        self._executor = Executor(
            self.slots,
            self._optimizer,
            say=self._say,
            stock=offered,
            config=self.config,
            bounds=msgspec.convert(msgspec.to_builtins(self.limits), Bounds),
            seed=self._seed,
            steps=self._link.step,
        )
        self._executor.take(started)
        cause = self._say(started, None)
        for event in self._offers.events:
            self._say(event, cause)
        self._executor.adopt()
        return self._executor

    def _end_of_epoch(self, train_loss: float | None, val_loss: float | None, val_accuracy: float | None) -> Action:
        executor, evaluate = self._begin(), self._evaluate
        for health, step in self._link.heard():
            self._decider.take(health, step)
        n: int | None = None
        if val_loss is None and evaluate is not None:
            found = self._measured(executor, evaluate)
            if found is None:
                evaluate = None  # what has just failed is not asked again
            else:
                val_loss, n = found.loss, found.n or None
                val_accuracy = found.accuracy if val_accuracy is None else val_accuracy
        event = self._epochs.ended(train_loss=train_loss, val_loss=val_loss, val_accuracy=val_accuracy, n=n)
        epoch = event.epoch
        cause = self._say(event, None)
        if not executor.end_epoch(epoch, train_loss=train_loss, val_loss=val_loss, evaluate=evaluate):
            self._failures += 1
        self._judging.judge(executor)
        action = WAIT
        acting = Acting(executor, self._offers, self._judging.outcomes, self._say)
        if self._inbox is not None:
            action = acting.obey(self._inbox, self.config.remote_wait)
        elif (epoch + 1) % self._every == 0:
            action = acting.decide(self._decider, cause)
        self._judging.judge(executor)
        self._go_on(executor)
        if self._inbox is not None or (epoch + 1) % self._every == 0:
            self._link.pace()
        return action

    def _end(self, measured: dict[str, float], *, measure: bool) -> None:
        executor = self._executor
        if executor is None:
            if not self._epochs and any(site.in_shape is None for site in self.slots.sites):
                return  # nothing ever went through the model: growth never began
            executor = self._begin()
        if measure and self.config.finish_at_end and self._evaluate is not None and self._epochs:
            executor.conclude(self._evaluate)
        self._judging.last(executor)
        contributing = sum(
            1
            for seedling in executor.standing.values()
            if seedling.stage == "fossilized" and ((seedling.contribution and seedling.contribution.gain) or 0.0) > 0
        )
        counts = executor.counts
        self._say(
            AdaptationFinished(
                epochs=len(self._epochs),
                germinated=counts["germinated"],
                fossilized=counts["fossilized"],
                pruned=counts["pruned"],
                contributing=contributing,
                params_grown=self.slots.params(),
                rollbacks=counts["rollbacks"],
                measured=measured,
            ),
            None,
        )

    # What is measured and recorded

    def _measured(self, executor: Executor, evaluate: Evaluate) -> Evaluation | None:
        """Measure the model as it is, and leave no trace in it or in the random generators; None where that failed."""
        from torch import no_grad

        try:
            with undisturbed(self.model), no_grad():
                self.model.eval()
                return evaluation(evaluate(self.model))
        except Exception as error:  # noqa: BLE001  anybody's function
            self._failures += 1
            executor.failed(error, EVALUATE)
            return None

    def _say(self, event: Event, cause: str | None) -> str | None:
        """Fold an event into what the policy sees, and record it."""
        self._decider.take(event, self._link.step())
        self._judging.outcomes.take(event)
        return self._link.record(event, cause)

    def _run_ends(self) -> None:
        self._finish({}, measure=False)

    def _open_inbox(self, run: Recorder) -> Inbox:
        name, settings = getattr(run, "name", None), getattr(run, "settings", None)
        if not isinstance(name, str) or settings is None:
            raise GrowthError("policy='remote' needs a recorded run: pass what morphogen.record() returned")
        return Inbox(settings, name)

    # What goes wrong, and the end

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        executor = self._executor
        try:
            if executor is None:
                _log.warning("growth: %s: %s; training goes on without it", type(error).__name__, line_of(error))
                self._off = True
                return
            executor.failed(error, "the end of an epoch")
            self._go_on(executor)
        except Exception as second:  # noqa: BLE001
            self._off = True
            _log.warning("growth is off, training goes on: %s: %s", type(second).__name__, line_of(second))

    def _go_on(self, executor: Executor) -> None:
        """Make ready for the next epoch; after too many failures be off instead."""
        if self._failures >= self.config.most_failures:
            self._off = True
            executor.close()
        else:
            executor.rest()

    def _close(self) -> None:
        self._link.close()
        if self._executor is None:
            release(self._link.run)
        else:
            self._executor.close()
        if self._inbox is not None:
            self._inbox.close()
