r"""Games: a preference, a reference policy and the strength `beta` of the regularisation towards it.

A game turns win rates into a payoff :math:`u(\pi)`, one number per response. The best response to a policy is
:math:`BR(\pi) = \mathrm{softmax}(\log\rho + u(\pi)/\beta)`, and an equilibrium is a policy that is its own best
response. The measures of a policy's quality, its gap, residual and certificates, are computed here and never by the
rule that produced the policy.
"""

from __future__ import annotations

from math import inf, log, log2
from typing import Any

import numpy as np

from . import bounds
from ._array import (
    Array,
    array_namespace,
    broadcast,
    columns,
    expectation,
    hilbert,
    is_array_api_obj,
    kl,
    like,
    log_normalize,
    owned,
    safe_log,
    scalar,
    scale,
    to_numpy,
)
from ._display import FEW, SHOWN, as_arguments, html_table, probabilities
from ._validation import above, as_float, by_label, check_log_policy, check_shape, first_index, in_context, per_context
from .preferences import MatrixPreference, Preference, RewardPreference


class Game:
    """The part that all games share; see `WinRateGame`, `LogWinRateGame`, `BestOfNGame`."""

    kind: str = "custom"
    """The payoff: ``"win-rate"``, ``"log-win-rate"``, ``"best-of-n"``, or another name in a subclass of your own."""
    n: float | None = None
    """Number of draws of a best-of-n game."""

    def __init__(self, preference: Preference, ref: Any = None, beta: Any = None, *, log_ref: Any = None) -> None:
        if not isinstance(preference, Preference):
            raise ValueError(
                f"preference must be a windgames preference, but it is a {type(preference).__name__}. "
                f"Wrap a matrix in MatrixPreference, rewards in RewardPreference."
            )
        if (ref is None) == (log_ref is None):
            raise ValueError("Pass the reference policy either as ref (probabilities) or as log_ref.")
        if beta is None:
            raise ValueError("beta is missing: pass the strength of the regularisation.")
        self.preference = preference
        if log_ref is None:
            self.ref, self.log_ref = _check_ref(ref, preference)
        else:
            self.ref, self.log_ref = _check_log_ref(log_ref, preference)
        ref = self.ref
        # what `replace` passes on; probabilities may have underflowed if logarithms were given
        in_dtype = array_namespace(ref).astype(self.log_ref, ref.dtype)
        self._reference = {"ref": ref} if log_ref is None else {"log_ref": in_dtype}
        self.beta = per_context(beta, "beta", zero=True)
        self._beta = columns(like(to_numpy(self.beta), ref) if is_array_api_obj(self.beta) else self.beta)
        shape = np.shape(to_numpy(self.beta)) if is_array_api_obj(self.beta) else ()
        try:
            self.batch_shape = np.broadcast_shapes(preference.batch_shape, tuple(ref.shape[:-1]), shape)
        except ValueError:
            raise ValueError(
                f"The contexts do not fit together: preference {preference.batch_shape}, "
                f"ref {tuple(ref.shape[:-1])}, beta {shape}."
            ) from None
        self.n_responses = preference.n_responses

    # -- the game ------------------------------------------------------------------------------------------

    def payoff(self, log_policy: Array) -> Array:
        """Return the payoff of each response against the policy, shape ``(..., m)``."""
        raise NotImplementedError

    def best_response(self, log_policy: Array) -> Array:
        r"""Return the log-probabilities of the best response :math:`\mathrm{softmax}(\log\rho + u(\pi)/\beta)`.

        At ``beta = 0`` there are many best responses; this one is `ref` restricted to the responses of largest
        payoff, the limit of the regularised ones.
        """
        return self.respond(self.payoff(log_policy))

    @np.errstate(over="ignore")  # the logarithm of a vanishing mass may overflow to -inf, its limit
    def respond(self, payoff: Array) -> Array:
        """Return the best response to a payoff that has been computed already."""
        xp = array_namespace(payoff)
        log_ref = xp.astype(self.log_ref, payoff.dtype)
        top = payoff == xp.max(payoff, axis=-1, keepdims=True)
        greedy = xp.where(top, log_ref + xp.zeros_like(payoff), xp.full_like(payoff, -inf))
        if is_array_api_obj(self._beta):
            free = self._beta == 0
            beta = xp.where(free, xp.ones_like(self._beta), self._beta)
            logits = xp.where(free, greedy, log_ref + payoff / xp.astype(beta, payoff.dtype))
        else:
            logits = greedy if self._beta == 0 else log_ref + payoff / self._beta
        return log_normalize(logits)

    @property
    def interaction(self) -> np.ndarray:
        """Interaction constant `L` of the preference (theory 5.2), per context."""
        return np.broadcast_to(self.preference.interaction, self.batch_shape)

    @property
    def contraction(self) -> np.ndarray:
        r"""Hilbert-metric Lipschitz constant :math:`\kappa \le 1` of a log payoff (theory 3.7), per context."""
        return np.ones(self.batch_shape)

    # -- the quality of a policy ---------------------------------------------------------------------------

    def gap(self, log_policy: Any) -> Array:
        r"""Return what one player gains by best-responding to the policy, shape ``(...)``.

        It equals :math:`\beta\,KL(\pi\|BR(\pi))`, half the duality gap of the win-rate game (theory 2.3), and at
        ``beta = 0`` :math:`\max u - E_\pi u`. It is zero exactly at an equilibrium, and infinite where the policy plays
        a response of payoff ``-inf``. Near an equilibrium it is of the order of the residual squared: a gap of 1e-12
        may go with a residual of 1e-6.
        """
        return self.measure(self.check_policy(log_policy))["gap"]

    def residual(self, log_policy: Any) -> Array:
        r"""Return the Hilbert distance :math:`h(\pi, BR(\pi))`, the quantity that every `tol` refers to.

        It is the largest minus the smallest entry of :math:`\log\pi-\log BR(\pi)`. At ``beta = 0``, where the best
        response is not unique, the residual is the gap.
        """
        return self.measure(self.check_policy(log_policy))["residual"]

    def kl_certificate(self, log_policy: Any) -> Array:
        r"""Return a proven upper bound on :math:`KL(\pi\|\pi^*)` that needs no knowledge of :math:`\pi^*`.

        Infinite where no theorem gives one. Note the direction: the rates of rules bound :math:`KL(\pi^*\|\pi)`. The
        bound allows for the rounding of double precision, which moves the residual by some ``1e-15 (1 + 1/beta)``.
        """
        return self.measure(self.check_policy(log_policy))["kl_certificate"]

    def hilbert_certificate(self, log_policy: Any) -> Array:
        r"""Return a proven upper bound on the Hilbert distance :math:`h(\pi,\pi^*)`; infinite where none is known.

        It allows for rounding as `kl_certificate` does.
        """
        return self.measure(self.check_policy(log_policy))["hilbert_certificate"]

    def _hilbert_certificate(self, log_policy: Array, residual: Array, divergence: Array) -> Array:
        """Return the proven distance from ``h(pi, BR(pi))`` and ``KL(pi||BR(pi))``, rounding included in both."""
        # Theory 2.4 and 2.5 need full support: from a face of the simplex the iteration stays on the face.
        xp = array_namespace(residual)
        factor = like(self.certificate_factor, residual)
        bad = xp.any(log_policy == -inf, axis=-1) | xp.isinf(factor)
        return xp.where(bad, xp.full_like(residual, inf), residual * xp.where(bad, xp.ones_like(factor), factor))

    def rounding(self, payoff: Array) -> Array:
        """Return how far rounding may have moved the residual computed from this payoff, shape ``(...)``.

        A win rate and a best response are sums over `m` terms; and at each end of the residual's span the logarithms of
        the reference and of the two policies are rounded.
        """
        xp = array_namespace(payoff)
        eps = float(xp.finfo(payoff.dtype).eps)
        finite = xp.isfinite(payoff)
        largest = xp.max(xp.abs(xp.where(finite, payoff, xp.zeros_like(payoff))), axis=-1)
        beta = self._beta if not is_array_api_obj(self._beta) else self._beta[..., 0]
        divisor = beta if not is_array_api_obj(beta) and beta > 0 else 1.0
        if is_array_api_obj(beta):
            divisor = xp.where(beta == 0, xp.ones_like(beta), beta)
        each = eps * (4 + log2(self.n_responses))
        magnitude = self.preference.summand_magnitude
        if isinstance(magnitude, np.ndarray):
            magnitude = like(magnitude, largest)
            largest = xp.where(largest > magnitude, largest, magnitude)
        # the logarithm of the reference, its normalisation and the sum with the payoff are three roundings of each
        # log-probability and its normalisation another three; a span has two ends
        return each + (each + each * largest) / divisor + 6 * eps * xp.max(xp.abs(self.log_ref), axis=-1)

    def measure(self, log_policy: Array, payoff: Array | None = None) -> dict[str, Array]:
        """Return gap, residual and both certificates at once, in float64, from one evaluation of the payoff.

        The policy is not validated; pass `payoff` if it has been computed already.
        """
        xp = array_namespace(log_policy)
        if log_policy.dtype != xp.float64:
            log_policy, payoff = log_normalize(xp.astype(log_policy, xp.float64)), None
        log_policy = broadcast(log_policy, np.broadcast_shapes(tuple(log_policy.shape[:-1]), self.batch_shape))
        u = self.payoff(log_policy) if payoff is None else payoff
        if not is_array_api_obj(self.beta) and self.beta == 0:
            gap = _unregularised_gap(log_policy, u)
            none = xp.full_like(gap, inf)
            return {"gap": gap, "kl_certificate": none, "hilbert_certificate": none, "residual": gap}
        response = self.respond(u)
        divergence = kl(log_policy, response)
        residual = hilbert(log_policy, response)
        free = to_numpy(self.beta) == 0 if is_array_api_obj(self.beta) else np.asarray(self.beta == 0)
        gap = scale(self._beta if not is_array_api_obj(self._beta) else self._beta[..., 0], divergence)
        if free.any():
            zero = like(np.broadcast_to(free, self.batch_shape), gap)
            gap = xp.where(zero, _unregularised_gap(log_policy, u), gap)
            residual = xp.where(zero, gap, residual)
        rounding = self.rounding(u)
        proven = self._hilbert_certificate(log_policy, residual + rounding, with_rounding(divergence, rounding))
        certificate = self._kl_certificate(divergence, proven, rounding)
        if free.any():
            certificate = xp.where(zero, xp.full_like(residual, inf), certificate)
        return {"gap": gap, "kl_certificate": certificate, "hilbert_certificate": proven, "residual": residual}

    def _kl_certificate(self, divergence: Array, proven: Array, rounding: Array) -> Array:
        """Return the bound from ``KL(pi||BR(pi))``, the proven Hilbert distance and the size of rounding errors."""
        raise NotImplementedError

    @property
    def certificate_factor(self) -> np.ndarray:
        r"""The factor `c` of :math:`h(\pi,\pi^*) \le c\, h(\pi,BR(\pi))`, per context; infinite where none is known."""
        raise NotImplementedError

    _data: tuple[str, ...] = ("preference", "beta")

    def to_numpy(self) -> Game:
        """Return the same game on numpy arrays in float64; the game itself if it is one already."""
        preference = self.preference.to_numpy()
        if preference is self.preference:
            return self
        beta = np.asarray(to_numpy(self.beta), dtype=float)
        return self.replace(preference=preference, log_ref=to_numpy(self.log_ref), beta=beta)

    def replace(self, **changes: Any) -> Game:
        """Return a game of the same kind with other data: any of `preference`, `ref` or `log_ref`, `beta` and `n`."""
        data = {name: getattr(self, name) for name in self._data}
        if "ref" not in changes and "log_ref" not in changes:
            data |= self._reference
        return type(self)(**data | changes)

    # -- validation ----------------------------------------------------------------------------------------

    def check_policy(self, log_policy: Any, name: str = "log_policy") -> Array:
        """Return `log_policy` as an array after checking shape, NaN and normalisation."""
        x = check_log_policy(log_policy, self.preference, name)
        try:
            fits = np.broadcast_shapes(tuple(x.shape[:-1]), self.batch_shape) == tuple(self.batch_shape)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"{name} has contexts {tuple(x.shape[:-1])}, but the game has {self.batch_shape}.")
        return broadcast(x, self.batch_shape)

    def __repr__(self) -> str:
        beta = f"{self.beta:g}" if not is_array_api_obj(self.beta) else "per context"
        return f"{type(self).__name__}({self.preference!r}, beta={beta})"

    def _repr_html_(self) -> str:
        log_ref = to_numpy(self.log_ref)
        if log_ref.ndim == 1 and self.n_responses <= FEW:
            reference = probabilities(np.exp(log_ref), self.preference.names)
        else:
            nats = kl(log_ref, np.full(self.n_responses, -log(self.n_responses)))
            reference = f"KL to uniform {nats.min():.3g}" + (f" to {nats.max():.3g}" if np.ptp(nats) > 0 else "")
        beta = to_numpy(self.beta) if is_array_api_obj(self.beta) else self.beta
        rows = [
            ("reference", reference),
            ("beta", f"{self.beta:g}" if np.ndim(beta) == 0 else f"{np.min(beta):g} to {np.max(beta):g} per context"),
        ]
        if self.n is not None:
            rows.append(("n", f"{self.n:g}"))
        return html_table(type(self).__name__, rows) + self.preference._repr_html_()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print a small game as the call that makes it, in IPython and in counterexamples of hypothesis."""
        if self.batch_shape or self.preference.names is not None or self.n_responses > SHOWN:
            printer.text(repr(self))
            return
        data = {"ref": self.ref} | self._reference | {name: getattr(self, name) for name in self._data[1:]}
        if "log_ref" in data:
            del data["ref"]
        printer.text(f"{type(self).__name__}({self.preference.as_call()}, {as_arguments(data)})")


def _check_ref(ref: Any, preference: Preference) -> tuple[Array, Array]:
    """Return the reference policy, and its logarithm in float64, from probabilities."""
    ref = as_float(by_label(ref, "ref", preference.names), "ref")
    if isinstance(ref, np.ndarray) and not isinstance(preference.example, np.ndarray):
        ref = like(ref, preference.example)
    check_shape(ref, preference, "ref")
    xp = _common_library(ref, preference, "ref")
    where = first_index(~((ref > 0) & (ref < inf)))
    if where is not None:
        raise ValueError(
            f"ref must have full support, but ref{list(where)} is {scalar(ref[where])}. Drop responses that the "
            f"reference never gives, or give them a small mass; logarithms go into log_ref, also those of masses "
            f"too small for a float."
        )
    total = xp.sum(xp.astype(ref, xp.float64), axis=-1)
    digits = float(xp.finfo(ref.dtype).eps)  # each mass is rounded to half of that, relative to itself
    where = first_index(xp.abs(total - 1) > max(1e-6, digits / 2))
    if where is not None:
        raise ValueError(f"ref must sum to one, but it sums to {scalar(total[where]):.12g}{in_context(where)}.")
    return owned(ref), owned(log_normalize(xp.log(xp.astype(ref, xp.float64))))


def _check_log_ref(log_ref: Any, preference: Preference) -> tuple[Array, Array]:
    """Return the reference policy, and its logarithm in float64, from normalised log-probabilities."""
    log_ref = check_log_policy(log_ref, preference, "log_ref")
    xp = _common_library(log_ref, preference, "log_ref")
    where = first_index(~xp.isfinite(log_ref))
    if where is not None:
        raise ValueError(
            f"log_ref must be finite, since the reference has full support, but log_ref{list(where)} is "
            f"{scalar(log_ref[where])}. Drop responses that the reference never gives."
        )
    return owned(xp.exp(log_ref)), owned(log_normalize(xp.astype(log_ref, xp.float64)))


def _common_library(x: Array, preference: Preference, name: str) -> Any:
    try:
        return array_namespace(x, preference.example)
    except TypeError:
        raise ValueError(
            f"{name} is an array of {type(x).__module__}, the preference's data of "
            f"{type(preference.example).__module__}: use one array library for both."
        ) from None


def _unregularised_gap(log_policy: Array, payoff: Array) -> Array:
    """Return the gap at ``beta = 0``: the largest payoff less the policy's own."""
    xp = array_namespace(payoff)
    gain = xp.max(payoff, axis=-1) - expectation(log_policy, payoff)
    # a gap is non-negative, since the deviations include staying; rounding may leave it slightly below
    return xp.where(gain > 0, gain, xp.zeros_like(gain))


def check_game(game: Any) -> None:
    """Raise ValueError for anything that is not a game."""
    if not isinstance(game, Game):
        raise ValueError(
            f"game must be a windgames game, but it is a {type(game).__name__}. "
            f"WinRateGame(preference, ref, beta) makes one."
        )


class WinRateGame(Game):
    r"""The win-rate game of WIND (theory 2.1).

    .. math:: \max_\pi \min_{\pi'}\; \pi^\top P\pi' - \beta\,KL(\pi\|\rho) + \beta\,KL(\pi'\|\rho)

    Payoff :math:`u(\pi) = P\pi`. For ``beta > 0`` there is one equilibrium, it is symmetric, has full support and
    value 1/2, and from any policy alone follows a bound on its distance to the equilibrium (theory 2.3, 2.4, 2.7).

    Parameters
    ----------
    preference : Preference
        Constant-sum, so that the game is zero-sum.
    ref : array, shape ``(..., m)``
        Reference policy (probabilities) with full support.
    beta : float or array, shape ``(...)``
        Strength of the regularisation: the price of leaving the reference, in win rate per nat. 0 is the unregularised
        game.
    log_ref : array, shape ``(..., m)``
        Normalised log-probabilities of the reference policy, in place of `ref`: for masses that a float cannot hold.

    Raises
    ------
    ValueError
        If the preference is not constant-sum (the message names the worst pair), the reference is not a
        distribution of full support, `beta` is negative, or shapes do not fit.

    Examples
    --------
    >>> import windgames as wg
    >>> game = wg.WinRateGame(wg.RewardPreference([0.0, 1.0, 2.0]), ref=[0.5, 0.3, 0.2], beta=0.1)
    >>> print(wg.equilibrium(game).policy.round(3))
    [0.016 0.011 0.974]
    """

    kind = "win-rate"

    def __init__(self, preference: Preference, ref: Any = None, beta: Any = None, *, log_ref: Any = None) -> None:
        super().__init__(preference, ref, beta, log_ref=log_ref)
        if not preference.is_constant_sum:
            if isinstance(preference, MatrixPreference):
                error, (*context, i, j) = preference.asymmetry()
                detail = (
                    f"P[{i},{j}] + P[{j},{i}] differs from 1 by {error:.3g}{in_context(tuple(context))}. Symmetrise it "
                    f"((P + 1 - P^T)/2), use LogWinRateGame, or, if it holds the payoffs of two different players, "
                    f"embed_zero_sum."
                )
            elif isinstance(preference, RewardPreference):
                detail = f"ties={preference.ties!r} makes the game a bimatrix game. Use ties='half', or LogWinRateGame."
            else:
                detail = f"{preference!r} is none (is_constant_sum). Use LogWinRateGame."
            raise ValueError(f"A win-rate game needs a constant-sum preference, but {detail}")

    def payoff(self, log_policy: Array) -> Array:
        return self.preference.win_rate(log_policy)

    def rounding(self, payoff: Array) -> Array:
        """Add how far a matrix that is constant-sum up to rounding moves a best response (theory 2.8)."""
        moved = np.broadcast_to(self.preference.imbalance / self._positive_beta, self.batch_shape)
        return super().rounding(payoff) + like(moved, payoff)

    def _kl_certificate(self, divergence: Array, proven: Array, rounding: Array) -> Array:
        return with_rounding(divergence, rounding)

    @property
    def _interaction_bound(self) -> np.ndarray:
        """Bound on the interaction constant of the constant-sum part of the preference."""
        return np.minimum(1.0, self.preference.interaction_bound + self.preference.imbalance)

    def _hilbert_certificate(self, log_policy: Array, residual: Array, divergence: Array) -> Array:
        """Theory 2.7, which never exceeds 2.4 but for the allowance for rounding: the smaller one of both."""
        xp = array_namespace(residual)
        coarse = super()._hilbert_certificate(log_policy, residual, divergence)
        known = xp.isfinite(coarse)
        slope = bounds.one_step_bound(0.5, self._positive_beta, self._interaction_bound)
        slope = like(np.broadcast_to(slope, self.batch_shape), residual)
        fine = residual + slope * (2 * xp.where(known, divergence, xp.zeros_like(divergence))) ** 0.5
        return xp.where(known & (fine < coarse), fine, coarse)

    @property
    def _positive_beta(self) -> np.ndarray:
        """`beta` with 1 in place of 0, where no certificate exists."""
        beta = np.asarray(to_numpy(self.beta), dtype=float)
        return np.where(beta == 0, 1.0, beta)

    @property
    def certificate_factor(self) -> np.ndarray:
        free = np.asarray(to_numpy(self.beta) == 0)
        factor = bounds.hilbert_certificate_factor(self._positive_beta, self._interaction_bound)
        return np.broadcast_to(np.where(free, inf, factor), self.batch_shape)


class _LogGame(Game):
    """Base of the two games with a logarithmic payoff, a contraction for beta > kappa (theory 2.5, 3.7)."""

    @property
    def contraction(self) -> np.ndarray:
        r"""Hilbert-metric Lipschitz constant :math:`\kappa \le 1` of the payoff, per context (theory 3.7)."""
        return np.broadcast_to(self.preference.contraction, self.batch_shape)

    def _kl_certificate(self, divergence: Array, proven: Array, rounding: Array) -> Array:
        return like(np.asarray(bounds.kl_from_hilbert(to_numpy(proven))), proven)

    @property
    def certificate_factor(self) -> np.ndarray:
        beta = np.asarray(to_numpy(self.beta), dtype=float)
        free = beta == 0
        factor = bounds.log_hilbert_certificate_factor(np.where(free, 1.0, beta), self.contraction)
        return np.broadcast_to(np.where(free, inf, factor), self.batch_shape)


class LogWinRateGame(_LogGame):
    r"""The log-win-rate game that iterative best-of-n solves (theory 2.2, 3.6).

    A symmetric equilibrium is a fixed point :math:`\pi = \mathrm{softmax}(\log\rho + \log(P\pi)/\beta)`. The game
    is not constant-sum. For ``beta`` above the contraction constant of `P` (at most 1) there is one equilibrium of
    full support. Below, several may coexist, and some may give mass to a part of the responses only: where
    :math:`(P\pi)_y = 0` the payoff of `y` is ``-inf``.

    Parameters
    ----------
    preference : Preference
        Any non-negative preference without a zero row or column. The paper's is
        ``RewardPreference(reward, ties="weak")``.
    ref, beta, log_ref
        As in `WinRateGame`.

    Raises
    ------
    ValueError
        If a row or a column of the preference is zero (strict ties: the worst response beats nobody, not even itself).
    """

    kind = "log-win-rate"

    def __init__(self, preference: Preference, ref: Any = None, beta: Any = None, *, log_ref: Any = None) -> None:
        super().__init__(preference, ref, beta, log_ref=log_ref)
        if isinstance(preference, RewardPreference):
            if preference.ties == "strict":
                raise ValueError(
                    "A log-win-rate game needs a preference without a zero row, but with ties='strict' the worst "
                    "response beats nobody. Use ties='weak' (the paper's) or 'half'."
                )
        else:
            zero = to_numpy(preference.matrix()) == 0
            for axis, line, why in ((-1, "row", "beats nobody"), (-2, "column", "is beaten by nobody")):
                where = first_index(np.all(zero, axis=axis))
                if where is not None:
                    raise ValueError(
                        f"A log-win-rate game needs a preference without a zero {line}, but {line} {where} is: that "
                        f"response {why}, not even itself. Give the diagonal 1/2 or 1."
                    )

    @classmethod
    def from_best_of_n(
        cls,
        preference: Preference,
        ref: Any = None,
        n: Any = None,
        alpha1: Any = None,
        alpha2: float = 0.0,
        *,
        log_ref: Any = None,
    ) -> LogWinRateGame:
        r"""Return the game that power-form iterative best-of-n solves, with its implied `beta` (theory 3.5).

        :math:`\beta = (1-\alpha_1-\alpha_2)/((n-1)\alpha_1)`.
        """
        return cls(preference, ref, bounds.implied_beta(n, alpha1, alpha2), log_ref=log_ref)

    def payoff(self, log_policy: Array) -> Array:
        return self.preference.log_win_rate(log_policy)


class BestOfNGame(_LogGame):
    r"""The game whose equilibria are the fixed points of exact iterative best-of-n (theory 3.6).

    The payoff is :math:`\frac{1}{n-1}\log\frac{F^n - F_-^n}{n(F - F_-)}`, where `F` is the mass of the responses that
    are not better and :math:`F_-` the mass of those that are worse. At ``n = 2`` it is the log-win-rate game with half
    ties; as the largest tied mass shrinks it approaches the log-win-rate game for every `n`.

    Parameters
    ----------
    preference : RewardPreference, or any constant-sum preference if ``n == 2``
        Only the order of the rewards matters; its tie convention does not.
    ref, beta, log_ref
        As in `WinRateGame`.
    n : float
        Number of draws, a real number above 1.
    """

    kind = "best-of-n"
    n: float
    _data = ("preference", "n", "beta")

    def __init__(
        self, preference: Preference, ref: Any = None, n: Any = None, beta: Any = None, *, log_ref: Any = None
    ) -> None:
        super().__init__(preference, ref, beta, log_ref=log_ref)
        self.n = above(n, "n", 1)
        needs_order(preference, self.n)

    @classmethod
    def from_best_of_n(
        cls,
        preference: Preference,
        ref: Any = None,
        n: Any = None,
        alpha1: Any = None,
        alpha2: float = 0.0,
        *,
        log_ref: Any = None,
    ) -> BestOfNGame:
        r"""Return the game that exact iterative best-of-n solves, with its implied `beta` (theory 3.5)."""
        return cls(preference, ref, n, bounds.implied_beta(n, alpha1, alpha2), log_ref=log_ref)

    @property
    def contraction(self) -> np.ndarray:
        if isinstance(self.preference, RewardPreference):
            return np.broadcast_to(np.where(self.preference.n_classes == 1, 0.0, 1.0), self.batch_shape)
        return super().contraction

    def payoff(self, log_policy: Array) -> Array:
        return log_best_of_n_ratio(self.preference, log_policy, self.n) / (self.n - 1)

    def __repr__(self) -> str:
        return super().__repr__()[:-1] + f", n={self.n:g})"


@np.errstate(over="ignore")  # a bound too large for a float is infinite
def with_rounding(divergence: Array, h: Array) -> Array:
    r"""Return a bound on :math:`KL(p\|q')` from :math:`KL(p\|q)` and :math:`h(q,q')\le h` (theory 1.3)."""
    return divergence + h * (divergence / 2) ** 0.5 + h * h / 8


def needs_order(preference: Preference, n: float) -> None:
    """Raise ValueError for a preference that does not define the exact best of `n` draws."""
    if isinstance(preference, RewardPreference) or (n == 2 and preference.is_constant_sum):
        return
    why = "is not constant-sum" if n == 2 else "does not order the responses"
    raise ValueError(
        f"The best of n = {n:g} draws is not defined by {preference!r}, which {why}. Use a RewardPreference, "
        f"n = 2 with a constant-sum preference, a tournament, or the power form."
    )


def log_best_of_n_ratio(preference: Preference, log_policy: Array, n: float) -> Array:
    r"""Return :math:`\log (B_n(\pi)/\pi)`, finite where the response or a worse one has mass.

    For a reward :math:`\log\frac{F^n-F_-^n}{F-F_-}`; for ``n = 2`` and any constant-sum preference
    :math:`\log 2P\pi` (theory 3.1, 3.3).
    """
    xp = array_namespace(log_policy)
    if not isinstance(preference, RewardPreference):
        return preference.log_win_rate(log_policy) + log(2)
    upto, below = preference.log_cdf(log_policy)
    return (n - 1) * upto + log_ratio_of_powers(_log_gap(xp, upto, below), n)


def _log_gap(xp: Any, upto: Array, below: Array) -> Array:
    """Return ``log F - log F_-``: infinite for the lowest class with mass, zero where all mass is on better ones."""
    nothing = below == upto
    return xp.where(nothing, xp.zeros_like(upto), upto - xp.where(nothing, xp.zeros_like(upto), below))


def log_ratio_of_powers(d: Array, n: float) -> Array:
    r"""Return :math:`\log\frac{1-e^{-nd}}{1-e^{-d}}` for :math:`d\in[0,\infty]`; :math:`\log n` at 0."""
    xp = array_namespace(d)
    tiny = n * d < 1e-8  # the series needs n d to be small, not only d
    safe = xp.where(tiny, xp.ones_like(d), d)
    exact = safe_log(-xp.expm1(-n * safe)) - safe_log(-xp.expm1(-safe))
    return xp.where(tiny, log(n) - (n - 1) * d / 2, exact)
