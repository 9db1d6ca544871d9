r"""Best-of-n and its relatives as operators on policies (theory 3.1 to 3.4)."""

from __future__ import annotations

from math import inf
from typing import Any

from ._array import Array, log_normalize, scale
from .games import log_best_of_n_ratio, needs_order
from .preferences import Preference, RewardPreference, check_log_policy

__all__ = ["best_of_n", "geometric_mixture", "tournament"]


def best_of_n(preference: Preference, log_policy: Array, n: float, form: str = "exact") -> Array:
    r"""Return the log-probabilities of the best of `n` independent draws.

    - ``"exact"``: a class of equal reward with cumulative mass `F`, of which :math:`F_-` lies below, gets
      :math:`F^n - F_-^n`, shared in proportion to the policy (ties among the best draws are broken uniformly). A
      semigroup: :math:`B_nB_k = B_{nk}` for all real ``n, k >= 1``. For ``n = 2`` any constant-sum preference will
      do: :math:`B_2(\pi) = 2\pi\,P\pi` (theory 3.1, 3.3).
    - ``"power"``: BOND's density form :math:`\pi\,(P_{weak}\pi)^{n-1}`, normalised; it agrees with the exact one as
      the largest class of equal reward shrinks (theory 3.2). For a preference that is not a reward's, `P` itself
      takes the place of :math:`P_{weak}`.

    Parameters
    ----------
    preference : Preference
    log_policy : array, shape ``(..., m)``
        Normalised log-probabilities.
    n : float
        A real number, at least 1.
    form : {"exact", "power"}

    Returns
    -------
    array, shape ``(..., m)``
        Normalised log-probabilities; :math:`KL(B_n(\pi)\|\pi) \le \log n - (n-1)/n` (theory 3.4).

    Raises
    ------
    ValueError
        If `n` is below 1, or the exact form is asked of a preference that does not order the responses.
    """
    log_policy = check_log_policy(log_policy, preference)
    if not 1 <= n < inf:
        raise ValueError(f"n must be a finite number, at least 1, but it is {n}.")
    if form == "exact":
        if n == 1:
            return log_policy
        needs_order(preference, n)
        # Already normalised in exact arithmetic; this removes the rounding.
        return log_normalize(log_policy + log_best_of_n_ratio(preference, log_policy, n))
    if form == "power":
        if isinstance(preference, RewardPreference):
            log_win_rate = preference.log_cdf(log_policy)[0]
        else:
            log_win_rate = preference.log_win_rate(log_policy)
        return log_normalize(log_policy + (n - 1) * log_win_rate) if n > 1 else log_policy
    raise ValueError(f"form must be 'exact' or 'power', but it is {form!r}.")


def tournament(preference: Preference, log_policy: Array, rounds: int) -> Array:
    r"""Return the log-probabilities of the winner of a knock-out among ``2**rounds`` independent draws.

    Each match is decided by the preference, afresh; the winner's law is :math:`B_2` applied `rounds` times, for any
    constant-sum preference (theory 3.3).
    """
    if int(rounds) != rounds or rounds < 0:
        raise ValueError(f"rounds must be a non-negative integer, but it is {rounds}.")
    for _ in range(int(rounds)):
        log_policy = best_of_n(preference, log_policy, 2)
    return log_policy


def geometric_mixture(log_policies: list[Array], weights: list[Any]) -> Array:
    r"""Return the log-probabilities of :math:`\prod_k \pi_k^{w_k}`, normalised."""
    if len(log_policies) != len(weights) or not weights:
        raise ValueError(f"{len(log_policies)} policies need as many weights, but there are {len(weights)}.")
    return log_normalize(sum(scale(w, x) for w, x in zip(weights, log_policies, strict=True)))
