"""What so many successes in so many trials prove."""

from math import sqrt

Z = 1.6449  # the quantile of the normal distribution that leaves 5% on one side


def wilson_lower(successes: int, trials: int) -> float:
    """Return the one-sided 95% lower bound of a share: 0 where there are no trials.

    Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927), with z = 1.6449. Raises
    ValueError where there are more successes than trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials cannot be: count again")
    if trials == 0:
        return 0.0
    share, square = successes / trials, Z * Z
    margin = Z * sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    return max(0.0, (share + square / (2 * trials) - margin) / (1 + square / trials))
