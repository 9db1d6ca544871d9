r"""Best-of-n and its relatives as operators on policies (theory 3.1 to 3.4)."""

from __future__ import annotations

from math import inf
from typing import Any

from ._array import Array, array_namespace, is_traced, log_normalize, scale
from ._validation import (
    above,
    as_float,
    check_log_policy,
    check_normalized,
    finite,
    first_index,
    in_context,
    one_of,
    whole,
)
from .games import log_best_of_n_ratio, needs_order
from .preferences import Preference, RewardPreference

__all__ = ["best_of_n", "geometric_mixture", "tournament"]


def best_of_n(preference: Preference, log_policy: Array, n: float, form: str = "exact") -> Array:
    r"""Return the log-probabilities of the best of `n` independent draws.

    - ``"exact"``: a class of equal reward with cumulative mass `F`, of which :math:`F_-` lies below, gets
      :math:`F^n - F_-^n`, shared in proportion to the policy (ties among the best draws are broken uniformly). A
      semigroup: :math:`B_nB_k = B_{nk}` for all real ``n, k >= 1``. For ``n = 2`` any constant-sum preference
      works: :math:`B_2(\pi) = 2\pi\,P\pi` (theory 3.1, 3.3).
    - ``"power"``: BOND's density form :math:`\pi\,(P_{weak}\pi)^{n-1}`, normalised; it agrees with the exact one as
      the largest class of equal reward shrinks (theory 3.2). For a preference that does not come from a reward, `P`
      replaces :math:`P_{weak}`.

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
        If `n` is below 1, `form` is unknown, or it is ``"exact"`` and the preference does not order the responses.
    """
    log_policy = check_log_policy(log_policy, preference)
    n = above(n, "n", 1, equal=True)
    if one_of(form, "form", ("exact", "power")) == "exact":
        if n == 1:
            return log_policy
        needs_order(preference, n)
        # normalised already in exact arithmetic: this removes the rounding
        return log_normalize(log_policy + log_best_of_n_ratio(preference, log_policy, n))
    if isinstance(preference, RewardPreference):
        log_win_rate = preference.log_cdf(log_policy)[0]
    else:
        log_win_rate = preference.log_win_rate(log_policy)
    return _normalized(log_policy + (n - 1) * log_win_rate, "win rates") if n > 1 else log_policy


def tournament(preference: Preference, log_policy: Array, rounds: int) -> Array:
    r"""Return the log-probabilities of the winner of a knock-out among ``2**rounds`` independent draws.

    Each match is an independent comparison; the winner is distributed as :math:`B_2` applied `rounds` times, for any
    constant-sum preference (theory 3.3).

    Raises
    ------
    ValueError
        If `rounds` is not a non-negative integer, or the preference is not constant-sum.
    """
    rounds, log_policy = whole(rounds, "rounds"), check_log_policy(log_policy, preference)
    needs_order(preference, 2)
    for _ in range(rounds):
        log_policy = best_of_n(preference, log_policy, 2)
    return log_policy


def geometric_mixture(log_policies: list[Array], weights: list[Any]) -> Array:
    r"""Return the log-probabilities of :math:`\prod_k \pi_k^{w_k}`, normalised.

    Raises
    ------
    ValueError
        If there are not as many finite weights as policies, a policy is not normalised log-probabilities, shapes
        differ, or no response is in all policies of positive weight.
    """
    if len(log_policies) != len(weights) or not len(weights):
        raise ValueError(f"{len(log_policies)} policies need as many weights, but there are {len(weights)}.")
    policies = [as_float(x, "log_policies") for x in log_policies]
    shapes = sorted({tuple(x.shape) for x in policies})
    if len(shapes) > 1 or not shapes[0]:
        raise ValueError(f"Policies must have one shape (..., m), but there are {', '.join(map(str, shapes))}.")
    for x in policies:
        if not is_traced(x):
            check_normalized(x, "log_policies")
    terms = [scale(finite(w, f"weights[{k}]"), x) for k, (w, x) in enumerate(zip(weights, policies, strict=True))]
    return _normalized(sum(terms), "policies")


def _normalized(x: Array, what: str) -> Array:
    where = first_index(array_namespace(x).max(x, axis=-1) == -inf)
    if where is not None:
        raise ValueError(f"The {what} leave no response any mass{in_context(where)}: their supports do not meet.")
    return log_normalize(x)
