"""Profiles, margin graphs and matrix games of other libraries, in and out, with their names.

Those libraries are imported inside the calls that make their objects; what comes in is read by its attributes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from ._array import to_numpy
from .preferences import Comparisons, MatrixPreference, Preference
from .preferences.comparisons import preference_of_margins
from .zero_sum import ZeroSumEmbedding, embed_zero_sum

__all__ = ["from_gambit", "from_open_spiel", "from_pref_voting", "to_gambit", "to_open_spiel"]

CONSTANT = 1e-9
"""How far, relative to the largest payoff, two players' payoffs may be from a constant sum."""


def from_pref_voting(source: Any) -> Comparisons | MatrixPreference:
    """Read a profile or a margin graph of pref_voting.

    Parameters
    ----------
    source : Profile, ProfileWithTies, MarginGraph or one like them

    Returns
    -------
    Comparisons
        Of a profile, one ballot at a time. Candidates that a ballot leaves out are below those that it ranks if the
        profile uses extended strict preferences; otherwise the ballot does not compare them.
    MatrixPreference
        Of a margin graph, whose winners at ``beta = 0`` are its maximal lotteries.
    """
    if not hasattr(source, "rankings_counts"):
        if not hasattr(source, "margin_matrix"):
            raise ValueError(
                f"source must be a profile or a margin graph of pref_voting, but it is a {type(source).__name__}."
            )
        names = [source.cmap[candidate] for candidate in source.candidates]
        return preference_of_margins(np.asarray(source.margin_matrix, dtype=float), names)
    rankings, counts = source.rankings_counts
    cmap = source.cmap
    if all(hasattr(ranking, "rmap") for ranking in rankings):
        ballots: list[Any] = [{cmap[c]: rank for c, rank in ranking.rmap.items()} for ranking in rankings]
        below = bool(getattr(source, "using_extended_strict_preference", False))
    else:
        ballots, below = [[cmap[int(c)] for c in ranking] for ranking in rankings], True
    names = [cmap[candidate] for candidate in source.candidates]
    return Comparisons.from_rankings(ballots, names, counts, "below" if below else "missing")


def from_gambit(game: Any) -> ZeroSumEmbedding:
    """Read a zero-sum or constant-sum game of two players from pygambit.

    Raises
    ------
    ValueError
        If there are not two players, or their payoffs do not have a constant sum.
    """
    players = list(game.players)
    if len(players) != 2:
        raise ValueError(f"game must have 2 players, but it has {len(players)}.")
    row, column = (np.asarray(payoffs, dtype=float) for payoffs in game.to_arrays(dtype=float))
    return _embed(row, column, *([strategy.label for strategy in player.strategies] for player in players))


def to_gambit(source: Any, title: str = "") -> Any:
    """Return a pygambit game of a preference, a zero-sum embedding, or a payoff matrix of the row player."""
    import pygambit

    A, *names = _matrix_game(source)
    game = pygambit.Game.from_arrays(A, -A, title=title)
    for player, labels in zip(game.players, names, strict=True):
        for strategy, label in zip(player.strategies, labels, strict=True):
            strategy.label = label
    return game


def from_open_spiel(game: Any) -> ZeroSumEmbedding:
    """Read a zero-sum or constant-sum matrix game from OpenSpiel.

    Raises
    ------
    ValueError
        If it is no matrix game, or the players' payoffs do not have a constant sum.
    """
    if not hasattr(game, "row_utilities"):
        raise ValueError(
            f"game must be a matrix game of OpenSpiel, but it is {str(game)[:40]}: pyspiel.load_matrix_game or "
            f"pyspiel.extensive_to_matrix_game makes one."
        )
    shape = game.num_rows(), game.num_cols()
    row, column = (np.reshape(x, shape).astype(float) for x in (game.row_utilities(), game.col_utilities()))
    names = (
        [game.row_action_name(i) for i in range(shape[0])],
        [game.col_action_name(j) for j in range(shape[1])],
    )
    return _embed(row, column, *names)


def to_open_spiel(source: Any, title: str = "windgames") -> Any:
    """Return a matrix game of OpenSpiel of a preference, a zero-sum embedding, or the row player's payoff matrix."""
    import pyspiel

    A, rows, columns = _matrix_game(source)
    return pyspiel.create_matrix_game(title, title, rows, columns, A.tolist(), (-A).tolist())


def _embed(row: np.ndarray, column: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> ZeroSumEmbedding:
    total = row + column
    size = max(float(np.max(np.abs(row))), float(np.max(np.abs(column))), 1e-300)
    if np.ptp(total) > CONSTANT * size:
        i, j = np.unravel_index(np.argmax(np.abs(total - total[0, 0])), total.shape)
        raise ValueError(
            f"The payoffs of the two players must have a constant sum, but they sum to {total[0, 0]:g} at (0, 0) and "
            f"to {total[i, j]:g} at ({i}, {j}): a general bimatrix game is not solved here."
        )
    return embed_zero_sum(row, rows, columns)


def _matrix_game(source: Any) -> tuple[np.ndarray, list[str], list[str]]:
    """Return the row player's payoffs and the names of rows and columns."""
    rows: Sequence[Hashable] | None
    columns: Sequence[Hashable] | None
    if isinstance(source, Preference):
        if source.batch_shape or not source.is_constant_sum:
            raise ValueError(f"The preference must be constant-sum and have one context, but it is {source!r}.")
        P = to_numpy(source.matrix()).astype(float)
        A, rows, columns = (P - P.T) / 2, source.names, source.names
    else:
        e = source if isinstance(source, ZeroSumEmbedding) else embed_zero_sum(source)
        A, rows, columns = to_numpy(e.payoff).astype(float), e.row_names, e.column_names
        if A.ndim != 2:
            raise ValueError(f"The game must have one context, but its payoff has shape {A.shape}.")
    return A, *(
        [str(k + 1) if names is None else str(names[k]) for k in range(size)]
        for names, size in ((rows, A.shape[0]), (columns, A.shape[1]))
    )
