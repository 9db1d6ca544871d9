r"""Closed forms for a reference without atoms.

Rank the responses to a prompt by reward and let :math:`u\in[0,1]` be the quantile of a response under the
reference: the mass of the responses that are worse. If no response has mass of its own, `u` is uniform under
the reference, and the policies of this package become densities on [0, 1] that no longer depend on the reward
(theory 3.11). The solvers approach them as the atoms of a discrete reference shrink, so they serve as test oracles,
and they give the exact trade-off of win rate against KL. Where the reference has atoms, use
`windgames.equilibrium`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import exp, expm1, isfinite, log, log1p
from typing import Any, NamedTuple

import numpy as np
from scipy.special import xlog1py, xlogy

from ._validation import above, finite, fraction, positive, positive_number

__all__ = ["BestOfN", "Frontier", "LogWinRate", "WinRate", "frontier", "largest_win_rate"]


def _log_power_kl(d: float) -> float:
    """Return ``d - 1 + exp(-d)``, the KL of the density ``n u^(n-1)`` with ``d = log n``."""
    if d > 0.1:
        return d + float(np.expm1(-d))
    term = total = d * d / 2
    for k in range(3, 14):
        term *= -d / k
        total += term
    return total


_LOG_SINHC = (1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775, -691 / 3831077250)
"""Taylor coefficients of log(sinh(y)/y) in y^2: 2^(2k) B_(2k) / (2k (2k)!)."""


def _log_sinhc(y: float) -> float:
    """Return ``log(sinh(y)/y)`` for ``y >= 0`` without cancellation or overflow."""
    if y < 0.2:
        return y * y * float(np.polynomial.polynomial.polyval(y * y, _LOG_SINHC))
    return y - log(2 * y) + log1p(-float(np.exp(-2 * y)))


def _langevin(y: float) -> float:
    """Return ``coth(y) - 1/y`` for ``y >= 0``, the derivative of `_log_sinhc`."""
    if y < 0.2:
        series = [2 * (k + 1) * a for k, a in enumerate(_LOG_SINHC)]
        return y * float(np.polynomial.polynomial.polyval(y * y, series))
    return 1 / float(np.tanh(y)) - 1 / y


def _tilt_kl(s: float) -> float:
    """Return the KL of the density ``exp(2 y u)``, normalised, with ``y = exp(s) - 1``."""
    if s > 300:
        return s + log(2) - 1
    y = expm1(s)
    if y < 0.2:
        return y * _langevin(y) - _log_sinhc(y)
    e = exp(-2 * y)
    return 2 * y * e / (1 - e) - 1 + log(2 * y) - log1p(-e)


class _Quantiles:
    """A distribution on [0, 1] given by its cdf and quantile function: the base of the three policies."""

    def cdf(self, u: Any) -> Any:
        raise NotImplementedError

    def quantile(self, q: Any) -> Any:
        raise NotImplementedError

    def expected_reward(self, reward_quantile: Callable[[float], float], *, points: Iterable[float] = ()) -> float:
        r"""Return the mean reward :math:`\int_0^1 R(Q(q))\,dq`, with `Q` this policy's `quantile`.

        Parameters
        ----------
        reward_quantile : callable
            :math:`R(u)`, the reward at quantile `u` of the reference: a non-decreasing function on (0, 1),
            for example ``scipy.stats.norm.ppf`` for rewards that are normal under the reference.
        points : iterable of float, optional
            Quantiles `u` at which `R` jumps or has a kink. Quadrature needs them to be accurate there.

        Returns
        -------
        float
            By adaptive quadrature, relative error about 1e-10 where `R` is smooth.

        Raises
        ------
        ValueError
            If `R` is not finite where it is evaluated, or the integral does not converge. Both happen if `R`
            is unbounded at 1 and the policy so sharp that its quantiles round to 1.
        """

        def integrand(q: float) -> float:
            u = float(self.quantile(q))
            try:
                value = float(reward_quantile(u))
            except (TypeError, ValueError, ZeroDivisionError) as error:
                raise ValueError(f"reward_quantile must return a number, but at u = {u!r}: {error}") from None
            if not isfinite(value):
                raise ValueError(
                    f"reward_quantile must be finite inside (0, 1), but at u = {u!r} it is {value}. An "
                    f"unbounded reward needs a less sharp policy (smaller n, larger beta)."
                )
            return value

        from scipy.integrate import quad  # on demand, like brentq: they would double the time of `import windgames`

        kinks = sorted({float(x) for x in np.ravel(self.cdf(np.asarray(list(points), dtype=float)))} - {0.0, 1.0})
        edges = [0.0, *kinks, 1.0]
        total = 0.0
        for low, high in pairwise(edges):
            value, error, *_ = quad(integrand, low, high, epsabs=1e-13, epsrel=1e-11, limit=200, full_output=1)
            if not (isfinite(value) and error <= 1e-7 * (1 + abs(value))):
                raise ValueError(
                    f"The mean reward did not converge: {value} with estimated error {error} between the "
                    f"policy's quantiles {low} and {high}. List the jumps of reward_quantile in points, or check "
                    f"that it is integrable."
                )
            total += value
        return total


@dataclass(frozen=True)
class BestOfN(_Quantiles):
    r"""The best of `n` independent draws of the reference (theory 3.11).

    Parameters
    ----------
    n : float
        At least 1. For real `n` it is the policy with CDF :math:`u^n`.

    Raises
    ------
    ValueError
        If `n` is not a finite number of at least 1.

    Examples
    --------
    >>> best = BestOfN(4)
    >>> round(best.win_rate(), 6), round(best.kl(), 6)
    (0.8, 0.636294)
    """

    n: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", above(self.n, "n", 1, equal=True))

    @classmethod
    def from_kl(cls, kl: float) -> BestOfN:
        """Return the best-of-n policy with this KL to the reference; ValueError if that `n` overflows."""
        d = _log_n(positive_number(kl, "kl", zero=True))
        if d > 700:
            raise ValueError(f"n = exp({d:.6g}) at kl = {kl} is too large for a float; use frontier(kl).")
        return cls(float(np.exp(d)))

    def cdf(self, u: Any) -> Any:
        r"""Return :math:`u^n`, same shape as `u`; ValueError outside [0, 1]."""
        return (fraction(u, "u") ** self.n)[()]

    def density(self, u: Any) -> Any:
        r"""Return :math:`n u^{n-1}`, same shape as `u`; ValueError outside [0, 1]."""
        return (self.n * fraction(u, "u") ** (self.n - 1))[()]

    def quantile(self, q: Any) -> Any:
        r"""Return :math:`q^{1/n}`, same shape as `q`; ValueError outside [0, 1]."""
        return (fraction(q, "q") ** (1 / self.n))[()]

    def win_rate(self) -> float:
        r"""Return :math:`E[u] = n/(n+1)`, the win rate against the reference (theory 3.11)."""
        return 1 / (1 + 1 / self.n)

    def kl(self) -> float:
        r"""Return the KL to the reference, :math:`\log n - (n-1)/n` (theory 3.11; equality in 3.4)."""
        return _log_power_kl(log1p(self.n - 1))


@dataclass(frozen=True)
class LogWinRate(_Quantiles):
    r"""The full-support equilibrium of the log-win-rate game (theory 3.11, derived).

    It is best-of-n with :math:`n_{\mathrm{eff}} = \beta/(\beta-1)`. Iterative best-of-n with weights
    :math:`\alpha_1, \alpha_2` converges to it with :math:`\beta = (1-\alpha_1-\alpha_2)/((n-1)\alpha_1)`.

    Parameters
    ----------
    beta : float
        Above 1.

    Raises
    ------
    ValueError
        If `beta` is not a finite number above 1. Without atoms the game has no equilibrium of full support
        for ``beta <= 1``: the iterates collapse onto the best response (theory 3.8, 3.11).

    Examples
    --------
    >>> LogWinRate(1.25).n_eff
    5.0
    """

    beta: float

    def __post_init__(self) -> None:
        beta = finite(self.beta, "beta")
        if beta <= 1:
            raise ValueError(
                f"Without atoms the log-win-rate game collapses onto the best response at beta <= 1, and "
                f"beta is {beta}. Use beta > 1, or a discrete reference and windgames.LogWinRateGame."
            )
        object.__setattr__(self, "beta", beta)

    @property
    def n_eff(self) -> float:
        r"""The `n` of the equal best-of-n policy, :math:`\beta/(\beta-1)`."""
        return self.beta / (self.beta - 1)

    def cdf(self, u: Any) -> Any:
        r"""Return :math:`u^{\beta/(\beta-1)}`, same shape as `u`; ValueError outside [0, 1]."""
        return (fraction(u, "u") ** self.n_eff)[()]

    def density(self, u: Any) -> Any:
        r"""Return :math:`n u^{n-1}` with `n` = `n_eff`, same shape as `u`; ValueError outside [0, 1]."""
        return (self.n_eff * fraction(u, "u") ** (1 / (self.beta - 1)))[()]

    def quantile(self, q: Any) -> Any:
        r"""Return :math:`q^{1-1/\beta}`, same shape as `q`; ValueError outside [0, 1]."""
        return (fraction(q, "q") ** ((self.beta - 1) / self.beta))[()]

    def win_rate(self) -> float:
        r"""Return :math:`E[u] = \beta/(2\beta-1)`, the win rate against the reference (theory 3.11)."""
        return self.beta / (self.beta + (self.beta - 1))

    def kl(self) -> float:
        r"""Return the KL to the reference, :math:`-\log(1-1/\beta) - 1/\beta` (theory 3.11)."""
        if self.beta < 2:  # beta - 1 is exact here, 1 - 1/beta is not
            return log(self.beta) - log(self.beta - 1) - 1 / self.beta
        return _log_power_kl(-log1p(-1 / self.beta))


@dataclass(frozen=True)
class WinRate(_Quantiles):
    r"""The equilibrium of the win-rate game (theory 3.11, derived).

    With :math:`c = 1-e^{-1/\beta}` its CDF is :math:`F(u) = -\beta\log(1-cu)`.

    Parameters
    ----------
    beta : float
        Positive; from 1e-300 on.

    Raises
    ------
    ValueError
        If `beta` is not a finite number of at least 1e-300. At ``beta = 0`` the equilibrium is the best
        response alone.

    Examples
    --------
    >>> policy = WinRate(0.1)
    >>> round(policy.win_rate(), 6), round(policy.kl(), 6)
    (0.900045, 2.69737)
    """

    beta: float

    def __post_init__(self) -> None:
        beta = finite(self.beta, "beta")
        if beta < 1e-300:
            raise ValueError(f"beta must be positive (at least 1e-300), but it is {beta}.")
        object.__setattr__(self, "beta", beta)

    @classmethod
    def from_kl(cls, kl: float) -> WinRate:
        """Return the equilibrium with this KL to the reference; ValueError at 0, which is ``beta = inf``."""
        y = _half_inverse_beta(positive_number(kl, "kl", zero=True))
        if y == 0:
            raise ValueError(f"kl must be positive and not underflow, but it is {kl}: no finite beta stays there.")
        return cls(1 / (2 * y))

    def _log_tail(self, u: np.ndarray) -> np.ndarray:
        """Return ``log(1 - c u)``, exact at both ends."""
        cu = -np.expm1(-1 / self.beta) * u
        with np.errstate(divide="ignore"):
            far = np.logaddexp(xlog1py(1.0, -u), xlogy(1.0, u) - 1 / self.beta)
        return np.where(cu <= 0.5, np.log1p(-np.minimum(cu, 0.5)), far)

    def cdf(self, u: Any) -> Any:
        r"""Return :math:`-\beta\log(1-cu)`, same shape as `u`; ValueError outside [0, 1]."""
        return np.clip(-self.beta * self._log_tail(fraction(u, "u")), 0.0, 1.0)[()]

    def density(self, u: Any) -> Any:
        r"""Return :math:`\beta c/(1-cu)`, same shape as `u`; ValueError outside [0, 1].

        At ``u = 1`` it is :math:`\beta(e^{1/\beta}-1)`, which a float cannot hold for `beta` below about
        1/710: then the value is ``inf``.
        """
        log_scale = log(self.beta) + log(-float(np.expm1(-1 / self.beta)))
        with np.errstate(over="ignore"):
            return np.exp(log_scale - self._log_tail(fraction(u, "u")))[()]

    def quantile(self, q: Any) -> Any:
        r"""Return :math:`(1-e^{-q/\beta})/c`, same shape as `q`; ValueError outside [0, 1]."""
        q = fraction(q, "q")
        return (np.expm1(-q / self.beta) / np.expm1(-1 / self.beta))[()]

    def win_rate(self) -> float:
        r"""Return :math:`E[u] = 1/c - \beta`, the win rate against the reference (theory 3.11)."""
        return 0.5 + 0.5 * _langevin(0.5 / self.beta)

    def kl(self) -> float:
        r"""Return the KL to the reference, :math:`\log(\beta c) + 1/(2\beta)` (theory 3.11).

        Computed as :math:`\log(\sinh y/y)` at :math:`y = 1/(2\beta)`, which is the same number.
        """
        return _log_sinhc(0.5 / self.beta)


class Frontier(NamedTuple):
    """Win rates against the reference at the same KL, each of the shape of `kl`."""

    best_of_n: Any
    win_rate_game: Any


def _root(f: Callable[[float], float], kl: float) -> float:
    """Return the root of an increasing `f`, quadratic at 0 and linear at infinity, where it equals `kl`."""
    if kl == 0:
        return 0.0
    high = (kl + 1) * 2
    if kl < 1e-2:  # both functions are at least d^2/7 there
        high = (7 * kl) ** 0.5
    while f(high) < kl:
        high *= 2
    if high > 1e300:
        raise ValueError(f"kl must be below 1e299, but it is {kl}.")
    from scipy.optimize import brentq

    return float(brentq(lambda d: f(d) - kl, 0.0, high, xtol=1e-300, rtol=1e-15, maxiter=500))


def _log_n(kl: float) -> float:
    return _root(_log_power_kl, kl)


def _half_inverse_beta(kl: float) -> float:
    return _root(_log_sinhc, kl)


def frontier(kl: Any) -> Frontier:
    r"""Return the win rates against the reference that best-of-n and the win-rate game reach at a given KL.

    Each policy is moved along its own parameter (`n`, `beta`) until its KL to the reference is `kl`, by root
    finding in the closed forms of theory 3.11 (derived). The log-win-rate game's equilibria are best-of-n
    policies, so they lie on the first curve.

    Parameters
    ----------
    kl : float or array
        KL to the reference, in nats, non-negative and finite.

    Returns
    -------
    Frontier
        Named tuple ``(best_of_n, win_rate_game)`` of win rates in [1/2, 1], each of the shape of `kl`.

    Raises
    ------
    ValueError
        If a KL is negative, not finite or above 1e299.

    Examples
    --------
    >>> best, game = frontier([0.0, 1.0])
    >>> best.round(4), game.round(4)
    (array([0.5   , 0.8631]), array([0.5   , 0.8185]))
    """
    best = _each(lambda one: 1 / (1 + float(np.exp(-_log_n(one)))), kl)
    return Frontier(best, _each(lambda one: 0.5 + 0.5 * _langevin(_half_inverse_beta(one)), kl))


def _each(win_rate: Callable[[float], float], kl: Any) -> Any:
    """Return a win rate for each KL."""
    values = positive(kl, "kl", zero=True)
    out = np.empty(values.shape)
    for index in np.ndindex(values.shape):
        out[index] = win_rate(float(values[index]))
    return out[()]


def largest_win_rate(kl: Any) -> Any:
    r"""Return the largest win rate against the reference that any policy has at a given KL to it (theory 3.12).

    It bounds every policy in every constant-sum preference, and is attained for a reward without atoms by the
    densities :math:`\propto e^{\lambda u}`.

    Parameters
    ----------
    kl : float or array
        KL to the reference, in nats, non-negative and finite.

    Returns
    -------
    float or array
        Win rates in [1/2, 1], of the shape of `kl`.

    Raises
    ------
    ValueError
        If a KL is negative, not finite or above 1e299.

    Examples
    --------
    >>> round(float(largest_win_rate(1.0)), 4)
    0.8646
    """
    return _each(lambda one: 0.5 + 0.5 * _langevin(expm1(min(_root(_tilt_kl, one), 700.0))), kl)
