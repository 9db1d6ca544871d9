r"""Learning from samples: contextual bandits whose equilibria are known exactly.

A learner sees prompts (contexts), samples responses from its own policy and asks an `Oracle` which of two responses is
better. The oracle counts the queries. The game is known in full to the evaluation, so every learner is measured by its
true distance to a certified equilibrium.

- :class:`Regression` runs any rule of `windgames.rules`: each stage of the rule becomes a regression on sampled
  comparisons. WIND's sampled algorithm (Algorithm 3 of the paper) is ``Regression(wind(eta))``, with squared, KL or NCE
  risk; SPPO is ``Regression(sppo(eta), pairing="constant")``, iterative BOND by log quantiles is
  ``Regression(iterative_bon(...))``, Nash-MD is ``Regression(nash_md(eta), opponents=8)``.
- :class:`JBond`, :class:`BestOfN` (iterative best-of-n by maximum likelihood) and :class:`Reinforce` ascend a weighted
  log-likelihood.

Policies are tables or log-linear in features. Axes before the contexts are independent replicates, which run together.
"""

from .labels import LabelledSamples, sample
from .learners import BestOfN, JBond, Learner, Regression, Reinforce
from .loop import Run, run
from .policies import LogLinear, Tabular

__all__ = [
    "BestOfN",
    "JBond",
    "LabelledSamples",
    "Learner",
    "LogLinear",
    "Regression",
    "Reinforce",
    "Run",
    "Tabular",
    "run",
    "sample",
]
