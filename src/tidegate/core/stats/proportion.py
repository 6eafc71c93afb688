"""The repeats of one case: how sure can we be that it passes, and that it passes less often than before?"""

from __future__ import annotations

import math

from tidegate.core.stats.beta import beta_cdf


def mostly(successes: int, n: int, *, share: float = 0.5) -> float:
    """
    How sure it is, after n tries, that the chance of success is at least `share`: 0 to 1.

    The posterior of a Beta(1, 1) prior, as Bowyer et al. (arXiv:2503.01747) advise for few tries. 3 of 3 give 0.94,
    2 of 3 give 0.69.
    """
    return 1 - beta_cdf(share, 1 + successes, 1 + n - successes)


def fewer(passed: int, n: int, passed_before: int, n_before: int) -> float:
    """
    How likely it is, where nothing changed, that chance gives so few of all passes to the later tries: one-sided p.

    Fisher's exact test (1935): right for any number of tries, and for any chance to pass. 0 of 8 after 8 of 8: 0.00008.
    """
    passes = passed + passed_before
    ways = (math.comb(n, k) * math.comb(n_before, passes - k) for k in range(max(0, passes - n_before), passed + 1))
    return sum(ways) / math.comb(n + n_before, passes)
