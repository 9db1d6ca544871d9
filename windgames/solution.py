"""What the solvers return: a policy with everything the game says of it, and the record of a run."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from ._array import Array, array_namespace, is_array_api_obj, to_numpy
from ._display import FEW, html_table, optional, probabilities, text_table
from .games import Game
from .updates import DISTANCES

QUANTITIES = ("gap", "kl_certificate", "hilbert_certificate", "residual")
"""What the game measures of every recorded iterate; see `Game.measure`."""
SMALLEST = 1e-20
"""Divergences below this are taken for rounding where a trace is compared with its local rate."""
BARS = 60
"""Up to this many responses `Solution.plot` draws bars, beyond it lines."""


@dataclass(frozen=True, repr=False)
class Trace:
    r"""What the game measured at each recorded iterate, as numpy arrays of shape ``(records, ...)``.

    The distances are there if a reference solution was given, else None. The two directions of the divergence differ:
    certificates bound `kl_to_solution`, rates bound `kl_from_solution`, which may be far larger.
    """

    steps: np.ndarray
    """The step of each record, shape ``(records,)``."""
    gap: np.ndarray
    """What one player gains by best-responding to the iterate (`Game.gap`)."""
    kl_certificate: np.ndarray
    r"""Proven bound on :math:`KL(\pi_t\|\pi^*)`."""
    hilbert_certificate: np.ndarray
    r"""Proven bound on :math:`h(\pi_t,\pi^*)`."""
    residual: np.ndarray
    r"""Hilbert distance of the iterate to its best response, :math:`h(\pi_t,BR(\pi_t))`."""
    kl_to_solution: np.ndarray | None = None
    r""":math:`KL(\pi_t\|\pi^*)`."""
    kl_from_solution: np.ndarray | None = None
    r""":math:`KL(\pi^*\|\pi_t)`."""
    hilbert_to_solution: np.ndarray | None = None
    r""":math:`h(\pi_t,\pi^*)`."""
    bound: np.ndarray | None = None
    """The theorem's bound on the quantity named by `bound_on`, enlarged by what the certificate of the reference
    solution leaves open; None where no theorem applies."""
    bound_on: str = ""
    """Name of the quantity that `bound` bounds."""
    theorem: str = ""
    """Where `bound` is proven."""
    bound_factor: np.ndarray | None = None
    """The factor per step of `bound`."""
    local_rate: np.ndarray | None = None
    r"""The factor per step that :math:`KL(\pi^*\|\pi_t)` approaches in the end (theory 5.10, 6.11), shape ``(...)``.

    Above 1 the equilibrium repels. Of a win-rate game of moderate size whose equilibrium is known, as the reference
    solution or because the run converged; None elsewhere, where the rule's fixed point is another, and at ``beta = 0``
    where the equilibrium is not unique or lacks a response. Of a moving reference it is the mean over a round."""
    log_policies: np.ndarray | None = None
    """The recorded iterates, shape ``(records, ..., m)``, if ``solve(..., record_policies=True)`` was asked for."""
    names: tuple[Hashable, ...] | None = None
    """Names of the responses, or None."""

    def __repr__(self) -> str:
        recorded = [name for name in (*QUANTITIES, *DISTANCES) if getattr(self, name) is not None]
        bound = f"; {self.theorem} bounds {self.bound_on}" if self.theorem else ""
        if self.theorem and self.bound_factor is not None:
            bound += f", factor {np.max(self.bound_factor):.4g} a step"
        local = ""
        if self.local_rate is not None:
            local = f"; in the end kl_from_solution changes by the factor {np.max(self.local_rate):.4g} (theory 5.10)"
        return f"Trace of {len(self.steps)} records: {', '.join(recorded)}{bound}{local}"

    @cached_property
    def local(self) -> np.ndarray | None:
        """`kl_from_solution` as it would be at `local_rate` throughout, through its last record above `SMALLEST`.

        Shape ``(records, ...)``; NaN where that lies above every record. None without `local_rate` or distances.
        """
        measured = self.kl_from_solution
        if self.local_rate is None or measured is None:
            return None
        usable = (measured > SMALLEST) & np.isfinite(measured)
        last = len(measured) - 1 - np.argmax(usable[::-1], axis=0)  # without one, the last record
        through = np.take_along_axis(measured, last[None], axis=0)[0]
        ago = self.steps.reshape(-1, *(1,) * last.ndim) - self.steps[last]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            line = through * self.local_rate**ago
            return np.where(line <= np.max(measured, axis=0), line, np.nan)

    def to_dict(self) -> dict[str, np.ndarray]:
        """Return the columns that exist; contexts become columns of their own. `log_policies` is left out."""
        out: dict[str, np.ndarray] = {"steps": self.steps}
        for name in (*QUANTITIES, *DISTANCES, "bound", "local"):
            values = getattr(self, name)
            if values is None:
                continue
            if values.ndim == 1:
                out[name] = values
            else:
                for index in np.ndindex(values.shape[1:]):
                    out[f"{name}[{','.join(map(str, index))}]"] = values[(slice(None), *index)]
        return out

    def to_frame(self) -> Any:
        """Return the columns of `to_dict` as a ``pandas.DataFrame``, one row per record.

        Of a single context whose iterates were recorded, the probability of each response is a column, by its name.

        Raises
        ------
        ImportError
            If pandas is not installed (extra ``plot``).
        """
        columns = self.to_dict()
        if self.log_policies is not None and self.log_policies.ndim == 2:
            names = range(self.log_policies.shape[-1]) if self.names is None else self.names
            columns |= {f"policy[{name}]": np.exp(x) for name, x in zip(names, self.log_policies.T, strict=True)}
        return optional("pandas", "Trace.to_frame", "plot").DataFrame(columns)

    def plot(self, ax: Any = None) -> Any:
        """Plot gap, residual, distances and the theorem's bound (dashed) against the step, on a logarithmic axis.

        A thin line has the slope of `local_rate`, which shows why a run may be faster than its bound. Of several
        contexts the largest value is shown. Zeros and infinite values are left out.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            A new figure's if None.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``plot``).
        """
        ax = _axes(ax, "Trace.plot")
        labels = {
            "residual": "residual $h(\\pi, BR(\\pi))$",
            "gap": "gap",
            "kl_to_solution": "$KL(\\pi\\,\\|\\,\\pi^*)$",
            "kl_from_solution": "$KL(\\pi^*\\,\\|\\,\\pi)$",
            "hilbert_to_solution": "$h(\\pi, \\pi^*)$",
        }
        colours = {}
        for name, label in labels.items():
            if getattr(self, name) is not None:
                (line,) = ax.plot(self.steps, _largest(getattr(self, name)), label=label)
                colours[name] = line.get_color()
        if self.bound is not None:
            colour = colours.get(self.bound_on, "black")
            label = f"bound of {self.theorem} on {labels[self.bound_on]}"
            ax.plot(self.steps, _largest(self.bound), "--", color=colour, label=label)
        if self.local is not None and self.local_rate is not None:
            label = (
                f"{labels['kl_from_solution']} at its local rate, {np.max(self.local_rate):.4g} a step (theory 5.10)"
            )
            ax.plot(self.steps, _largest(self.local), color="0.3", linewidth=0.8, label=label)
        ax.set(yscale="log", xlabel="step")
        ax.legend()
        return ax


def _largest(values: np.ndarray) -> np.ndarray:
    """Return the largest value over contexts, NaN where a logarithmic axis has no place for it."""
    worst = np.max(values.reshape(len(values), -1), axis=1)
    return np.where((worst > 0) & (worst < inf), worst, np.nan)


def _axes(ax: Any, purpose: str) -> Any:
    return optional("matplotlib.pyplot", purpose, "plot").subplots()[1] if ax is None else ax


@dataclass(frozen=True, repr=False)
class Solution:
    """A policy and all that is known about it.

    `gap`, `kl_certificate`, `hilbert_certificate`, `residual`, `converged` and `steps` have the shape of the contexts.
    """

    game: Game
    log_policy: Array
    """Normalised log-probabilities, shape ``(..., m)``."""
    gap: np.ndarray
    """What one player gains by best-responding to the policy (`Game.gap`)."""
    kl_certificate: np.ndarray
    r"""Proven bound on :math:`KL(\pi\|\pi^*)`; infinite where none is known."""
    residual: np.ndarray
    r"""Hilbert distance of the policy to its best response, :math:`h(\pi,BR(\pi))`."""
    converged: np.ndarray
    """Whether the residual is at most `tol`."""
    steps: np.ndarray
    """Steps of the rule, or linear systems of Newton's method."""
    status: str
    """A sentence: what happened and, if the run did not converge, what to change."""
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    trace: Trace | None = None
    """The record of the run, of solutions of `solve`."""

    @cached_property
    def policy(self) -> Array:
        """The policy as probabilities, shape ``(..., m)``."""
        return array_namespace(self.log_policy).exp(self.log_policy)

    @cached_property
    def support(self) -> Array:
        """Mask of the responses that are played at all."""
        return self.log_policy > -inf

    @cached_property
    def hilbert_certificate(self) -> np.ndarray:
        """Proven bound on the Hilbert distance to the equilibrium; infinite where none is known."""
        return to_numpy(self.game.hilbert_certificate(self.log_policy))

    def _rows(self) -> list[tuple[str, str]]:
        def most(x: np.ndarray) -> str:
            value = float(np.max(x)) if x.size else 0.0
            return "none known" if value == inf else f"{value:.2e}"

        contexts = int(np.prod(self.game.batch_shape))
        per_context = self.game.batch_shape != ()
        worst = " (worst context)" if per_context else ""
        sizes = to_numpy(self.support).sum(axis=-1)
        regularised = np.broadcast_to(to_numpy(self.game.beta) > 0, self.game.batch_shape)
        played = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        rows = [
            ("status", self.status),
            ("method", self.method + "".join(f", {k}={_short(v)}" for k, v in self.settings.items())),
            ("steps", f"{int(np.max(self.steps))}{worst}"),
            ("residual h(π, BR(π))", most(self.residual[regularised]) + worst),
            ("gap", most(self.gap) + worst),
            ("proven: KL(π‖π*) ≤", most(self.kl_certificate) + worst),
            ("proven: h(π, π*) ≤", most(self.hilbert_certificate) + worst),
            ("support", f"{played} of {self.game.n_responses} responses"),
        ]
        if not np.any(regularised):  # at beta = 0 the best response is no single policy, and the gap takes its place
            rows = [row for row in rows if not row[0].startswith("residual")]
        names = self.game.preference.names
        if not per_context and (self.game.n_responses <= FEW or names is not None):
            rows.insert(1, ("policy", probabilities(to_numpy(self.policy), names)))
        if per_context:
            rows.insert(1, ("converged", f"{int(np.sum(self.converged))} of {contexts} contexts"))
        return rows

    def __repr__(self) -> str:
        return text_table(f"Solution of {self.game!r}", self._rows())

    def to_frame(self) -> Any:
        """Return policy and reference as a ``pandas.DataFrame``, one row per response, by name if there are names.

        Of several contexts the columns are ``policy[i]`` and ``reference[i]``.

        Raises
        ------
        ImportError
            If pandas is not installed (extra ``plot``).
        """
        pandas = optional("pandas", "Solution.to_frame", "plot")
        batch, m = self.game.batch_shape, self.game.n_responses
        reference = np.broadcast_to(np.exp(to_numpy(self.game.log_ref)), (*batch, m))
        columns = {}
        for name, values in (("policy", to_numpy(self.policy)), ("reference", reference)):
            for index in np.ndindex(batch):
                columns[name + (f"[{','.join(map(str, index))}]" if batch else "")] = values[index]
        names = self.game.preference.names
        return pandas.DataFrame(columns, index=None if names is None else list(names))

    def _repr_html_(self) -> str:
        return html_table(f"Solution of {self.game!r}", self._rows())

    def plot(self, ax: Any = None, context: tuple[int, ...] | int = ()) -> Any:
        """Plot the policy beside the reference policy, response by response.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            A new figure's if None.
        context : tuple of int or int
            Which context to show, of a game with several.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ValueError
            If the game has several contexts and `context` does not name one.
        ImportError
            If matplotlib is not installed (extra ``plot``).
        """
        index = (context,) if isinstance(context, int) else tuple(context)
        batch = self.game.batch_shape
        if len(index) != len(batch) or any(not -n <= i < n for i, n in zip(index, batch, strict=True)):
            example = (0,) * len(batch)
            raise ValueError(
                f"context must be an index of the game's contexts, of shape {batch}, such as {example}, "
                f"but it is {context}."
            )
        ax = _axes(ax, "Solution.plot")
        log_ref = np.broadcast_to(to_numpy(self.game.log_ref), (*batch, self.game.n_responses))
        shares = {"reference": np.exp(log_ref[index]), self.method.partition(" (")[0]: to_numpy(self.policy)[index]}
        y = np.arange(self.game.n_responses)
        for k, ((label, values), colour) in enumerate(zip(shares.items(), ("0.7", "C0"), strict=True)):
            if self.game.n_responses <= BARS:
                ax.bar(y + 0.4 * k - 0.2, values, width=0.4, color=colour, label=label)
            else:
                ax.plot(y, values, color=colour, label=label, linewidth=1)
        if self.game.n_responses <= 20:
            names = self.game.preference.names
            ax.set_xticks(y, None if names is None else list(map(str, names)))
        ax.set(xlabel="response", ylabel="probability", ylim=(0, None))
        ax.legend()
        return ax


def _short(value: Any) -> str:
    if is_array_api_obj(value) and value.ndim:
        values = to_numpy(value)
        return f"{values.min():.4g} to {values.max():.4g}"
    return value if isinstance(value, str) else f"{float(value):.6g}"
