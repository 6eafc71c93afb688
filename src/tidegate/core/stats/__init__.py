"""
The gate's statistics: verdicts that stay honest with few cases, and neither cry wolf nor sleep.

    means of repeats per case → differences per case → one-sided p values → Holm over the metrics that gate

    paired       two versions: p values of "worse than the margin" and "within the margin", interval
    tango        pass/fail pairs: score interval
    robust       everything else with many cases: Student's t on a cluster-robust standard error
    bounded      everything with few cases: what a mean of bounded values can still be (for 0 and 1: Clopper–Pearson)
    sign_flip    the exact test that nothing changed; for pass/fail pairs McNemar's, exact or mid-p
    proportion   one case alone: the chance that it mostly passes, and Fisher's exact test that it passes less often
    several      Holm for verdicts, Benjamini–Hochberg for slices
    plan         the smallest visible drop and the cases a margin takes, before the run
    beta         the incomplete beta function, from which t and binomial tails come

Only the standard library: a command starts in 0.3 s. Every result is checked against scipy or statsmodels in the tests.
"""

from tidegate.core.stats.bounded import bounded_interval
from tidegate.core.stats.paired import Comparison, compare
from tidegate.core.stats.plan import ALPHA, ALPHA_OF_TWO_LOOKS, mde, pairs_needed, within_variance
from tidegate.core.stats.proportion import fewer, mostly
from tidegate.core.stats.several import benjamini_hochberg, holm

__all__ = [
    "ALPHA",
    "ALPHA_OF_TWO_LOOKS",
    "Comparison",
    "benjamini_hochberg",
    "bounded_interval",
    "compare",
    "fewer",
    "holm",
    "mde",
    "mostly",
    "pairs_needed",
    "within_variance",
]
