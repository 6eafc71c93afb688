"""One share alone, without a pair: how sure can we be of it?"""

from __future__ import annotations

from tidegate.core.stats.beta import beta_cdf


def mostly(successes: int, n: int, *, share: float = 0.5) -> float:
    """
    How sure it is, after n tries, that the chance of success is at least `share`: 0 to 1.

    The posterior of a Beta(1, 1) prior, as Bowyer et al. (arXiv:2503.01747) advise for few tries. 3 of 3 give 0.94,
    2 of 3 give 0.69.
    """
    return 1 - beta_cdf(share, 1 + successes, 1 + n - successes)
