"""The last two stages, judged when a version has run beside the live mode: shadow, promotion."""

from morphogen.consumers.executions import wilson_lower

from .config import GauntletConfig
from .stage import Stage


def shadowed(agreed: int, trials: int, config: GauntletConfig | None = None) -> Stage:
    """Judge the runs beside the live mode: enough of them, and not one that differed."""
    config = config or GauntletConfig()
    reason = ""
    if agreed < trials:
        reason = f"{trials - agreed} of {trials} runs beside the live mode differed"
    elif trials < config.shadows:
        reason = f"it ran beside the live mode {trials} times, and {config.shadows} are asked for"
    return Stage("shadow", reason, evidence={"needed": config.shadows}, tried=trials, matched=agreed)


def promoted(replayed: int, agreed: int, trials: int, config: GauntletConfig | None = None) -> Stage:
    """Judge all that a version was held to, by the lower bound of its successes (Wilson 1927, one-sided 95%)."""
    config = config or GauntletConfig()
    successes, tried = replayed + agreed, replayed + trials
    lower = wilson_lower(successes, tried)
    reason = ""
    if lower < config.promote_lower:
        reason = f"the lower bound of {successes} in {tried} is {lower:.3f}, and {config.promote_lower:g} is asked for"
    evidence = {"lower": lower, "needed": config.promote_lower}
    return Stage("promotion", reason, evidence=evidence, tried=tried, matched=successes)
