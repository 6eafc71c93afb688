"""One share alone, without a pair: how sure can we be of it?"""

from __future__ import annotations

import math
from statistics import NormalDist

from tidegate.core.stats.beta import beta_cdf


def wilson(successes: float, n: int, *, alpha: float) -> tuple[float, float]:
    """
    Score interval of a share, two-sided at 1 − 2·alpha; n ≥ 1, `successes` may be fractional (means of repeats).

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927) 209-212.
    """
    z2 = NormalDist().inv_cdf(1 - alpha) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(max(0.0, z2 * (share * (1 - share) / n + z2 / (4 * n * n)))) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def mostly(successes: int, n: int, *, share: float = 0.5) -> float:
    """
    How sure it is, after n tries, that the chance of success is at least `share`: 0 to 1.

    The posterior of a Beta(1, 1) prior, as Bowyer et al. (arXiv:2503.01747) advise for few tries. 3 of 3 give 0.94,
    2 of 3 give 0.69.
    """
    return 1 - beta_cdf(share, 1 + successes, 1 + n - successes)
