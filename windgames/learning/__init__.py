r"""Learning from samples: contextual bandits whose equilibria are known exactly.

A learner sees prompts (contexts), draws responses from its own policy and asks an :class:`Oracle` which of two is
better. The oracle counts. The game that grades the learner knows everything, so that every learner is priced by its
true distance to a proven equilibrium.

- Regression of any rule: :class:`Regress` turns the stages of a rule of `windgames.updates` into regressions on what
  was seen. WIND's sampled algorithm (the paper's Algorithm 3) is ``Regress(wind(eta))``, with squared, KL or NCE risk;
  SPPO is ``Regress(sppo(eta), pairing="constant")``, iterative BOND by log-quantiles ``Regress(iterative_bon(...))``,
  Nash-MD ``Regress(nash_md(eta), opponents=8)``.
- Likelihood ascent: :class:`JBond`, :class:`Distil` (iterative best-of-n by maximum likelihood), :class:`Reinforce`.

Policies are tables or log-linear in features. Leading axes before the contexts are independent replicates, which run
together.
"""

from .labels import Seen, draw
from .learners import Distil, JBond, Learner, Regress, Reinforce
from .loop import Run, run
from .policies import LogLinear, Tabular

__all__ = ["Distil", "JBond", "Learner", "LogLinear", "Regress", "Reinforce", "Run", "Seen", "Tabular", "draw", "run"]
