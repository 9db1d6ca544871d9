"""`windgames.equilibrium` and `windgames.solve` against the alternatives, on the same games in the same run.

    python benchmarks/solvers.py                  # every study at reduced size, into benchmarks/quick
    python benchmarks/solvers.py --study grid     # one of them
    python benchmarks/solvers.py --full           # the committed tables: an hour and a half
    python benchmarks/solvers.py --smoke          # small games, for tests

    agreement  random games of every kind: distance to the equilibrium in sixty digits
    grid       time and accuracy against the number of responses, kind by kind, beta from 10 to 0
    batch      many contexts at once
    large      a million responses, against one sort of the same size
    hard       hard cases: certified, or refused with a reason
    choice     our own ways to solve a dense game, each forced, against the way that is chosen; systems against one LU
    path       twenty values of beta in one call, against each alone

Each writes ``solvers_<study>.csv`` with a JSON sidecar; finished cells are kept. Every answer is graded here by the
game, as it is and after one best response, and the better counts. A cell times all solvers side by side, in a process
that is killed when a solver's seconds are over: those of the cell, or five times ours. Peers that are not installed are
left out by name (extra ``peers``). Times are of this machine; the ratios are what to compare.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from math import inf, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tyro
from _study import QUICK, RESULTS, ROOT, Rows, Scale, Study, draw, fingerprint, run_study, show
from scipy.linalg.lapack import dgetrf
from sixty_digits import exact
from solvers_games import HARD, KINDS, RANDOM, Instance
from solvers_peers import OURS, SOLVERS, Solver
from solvers_worker import Result, Worker
from threadpoolctl import threadpool_limits

import windgames as wg
from windgames.equilibria import central_path as central
from windgames.equilibria import dense

HERE = Path(__file__).resolve().parent
EXACT = 30
"""Up to this many responses the equilibrium is known to sixty digits."""
TIGHT, LOOSE = 1e-8, 1e-6
"""Tight: log-probabilities up to this residual; loose: probabilities up to this total variation, proven. At
``beta = 0``, where equilibria may be many, both are of the gap."""
TIMES, OURS_AT_MOST = 5, 600.0
"""A peer may take the budget of its cell or so many times our seconds, whichever is more; we may take so many."""
LEVELS = {"tight": f"log-probabilities to {TIGHT:.0e}", "loose": f"probabilities to {LOOSE:.0e}"}
GAME = ["kind", "m", "contexts", "beta", "seed", "threads"]

DIRECT = [s.name for s in SOLVERS if "mirror" not in s.name and "mmd" not in s.name and "one by one" not in s.name]
"""Those who are asked about hard cases: iterations with a step of beta would only use up their seconds."""


# -- one way to measure --------------------------------------------------------------------------------------


def compare(config: dict[str, Any], _rng: np.random.Generator) -> Rows:
    """Ask every solver about the same games, from the smallest on; one that was over time is not asked again."""
    rows, late = [], set()
    for m, contexts in config["sizes"]:
        instance = Instance(config["kind"], m, config["beta"], contexts, config["seed"])
        where = asdict(instance) | {"threads": config["threads"]}
        try:
            game = instance.make()
        except ValueError as error:
            rows.append(where | {"solver": "windgames"} | grade(None, Result("refused", str(error))))
            continue
        sure, patience = reference(game), config["budget"]
        for solver in asked(game, config["only"]):
            if solver.name in late:
                continue
            budget = OURS_AT_MOST if solver.name in OURS else patience
            result = worker(config["threads"]).ask(solver.name, instance, budget)
            if result.status == "over time":
                late.add(solver.name)
            if solver.name == "windgames" and result.status == "answered":
                patience = max(patience, TIMES * result.seconds)
            who = {"solver": solver.name, "version": solver.version, "budget": budget}
            rows.append(where | who | grade(game, result, sure))
    return rows


@cache
def worker(threads: str) -> Worker:
    """Return the process in which solvers run, the same one as long as it lives."""
    return Worker(threads == "one")


def asked(game: wg.Game, only: Iterable[str]) -> list[Solver]:
    return [s for s in SOLVERS if not s.missing and s.takes(game) and (not only or s.name in only)]


def reference(game: wg.Game) -> np.ndarray | None:
    """Return the equilibrium in sixty digits where the game is small enough."""
    small = game.n_responses <= EXACT and game.batch_shape == () and game.beta > 0
    return exact(game, wg.equilibrium(game).log_policy) if small and isinstance(game, wg.WinRateGame) else None


def grade(game: wg.Game | None, result: Result, sure: np.ndarray | None = None) -> dict[str, Any]:
    """Let the game say how good an answer is, in the worst context."""
    row: dict[str, Any] = {"status": result.status, "reason": result.reason}
    row |= {"seconds": result.seconds, "seconds_inside": result.inside, "memory_GB": result.memory / 1e9}
    if result.log_policy is None or game is None:
        return row | {"accuracy": "neither"}
    if not np.all(result.log_policy < np.inf):  # NaN, too
        return row | {"status": "refused", "reason": "the answer holds NaN", "accuracy": "neither"}
    policy, measured = result.log_policy, game.measure(result.log_policy)
    raw = measured["residual"]
    if game.beta > 0:
        again = game.best_response(policy)
        other = game.measure(again)
        better = other["residual"] < raw
        policy = np.where(better[..., None], again, policy)
        measured = {name: np.where(better, other[name], measured[name]) for name in measured}
    worst = {name: float(np.max(value)) for name, value in measured.items()}
    proven = sqrt(worst["kl_certificate"] / 2)
    tight = worst["residual"] <= TIGHT
    loose = (worst["gap"] if game.beta == 0 else proven) <= LOOSE
    return row | {
        "accuracy": "tight" if tight else "loose" if loose else "neither",
        "raw_residual": float(np.max(raw)),
        "residual": worst["residual"],
        "gap": worst["gap"],
        "kl_certificate": worst["kl_certificate"],
        "total_variation_proven": proven,
        "total_variation": np.nan if sure is None else float(np.abs(np.exp(policy) - np.exp(sure)).sum() / 2),
    }


def best_peers(table: pd.DataFrame, level: str) -> pd.DataFrame:
    """Return, for each game, our time, the fastest peer as accurate as `level`, and how many times ours its time is."""
    rows = []
    for key, group in table.groupby(GAME, sort=False):
        good = group[group.accuracy.isin(["tight", level])]
        ours, peers = good[good.solver == "windgames"], good[~good.solver.isin(OURS)]
        if len(ours):
            best = peers.loc[peers.seconds.idxmin()] if len(peers) else None
            one = {"ours_s": ours.seconds.iloc[0], "peer": "nobody" if best is None else best.solver}
            rows.append(dict(zip(GAME, key, strict=True)) | one | {"peer_s": np.nan if best is None else best.seconds})
    out = pd.DataFrame(rows, columns=[*GAME, "ours_s", "peer", "peer_s"])
    out["ratio"] = out.peer_s / out.ours_s
    return out


# -- the studies ---------------------------------------------------------------------------------------------


def cell(kind: str, beta: float, threads: str, sizes: list[tuple[int, int]], **more: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "beta": beta,
        "threads": threads,
        "seed": 0,
        "only": [],
        "budget": 10.0,
        "sizes": sizes,
    } | more


def agreement_configs(scale: Scale) -> list[dict[str, Any]]:
    most, lowest, budget = scale.pick((6, -0.5, 30.0), (EXACT, -2, 2.0), (EXACT, -2, 2.0))
    rng = np.random.default_rng(4)
    configs = []
    for i in range(scale.pick(1, 2, 4) * len(RANDOM)):
        m, beta = int(rng.integers(2, most)), float(10 ** rng.uniform(lowest, 1))
        configs.append(cell(RANDOM[i % len(RANDOM)], beta, "one", [(m, 0)], seed=i, budget=budget))
    return configs


def agreement_report(table: pd.DataFrame) -> None:
    solved = table[table.total_variation.notna()]
    shown = solved.groupby("solver", sort=False).agg(
        games=("seed", "size"),
        median=("total_variation", "median"),
        largest=("total_variation", "max"),
        residual=("residual", "max"),
    )
    shown["no_answer"] = table[table.status != "answered"].groupby("solver").size()
    ours = solved[solved.solver == "windgames"]
    sound = solved.total_variation <= solved.total_variation_proven + 1e-15
    show(
        "Total variation to the equilibrium in sixty digits, random games of every kind",
        shown.fillna({"no_answer": 0}).reset_index(),
        f"{len(ours)} games: windgames is at most {ours.total_variation.max():.1e} away. The certificate's bound holds "
        f"for {int(sound.sum())} of {len(sound)} answers, whoever gave them.",
    )


def grid_configs(scale: Scale) -> list[dict[str, Any]]:
    dense = scale.pick([3, 10], [10, 100, 300], [10, 30, 100, 300, 1000])
    ordered = scale.pick([3, 100], [10, 100, 300, 10**4, 10**6], [10, 30, 100, 300, 1000, 10**4, 10**5, 10**6])
    embedded = dense + scale.pick([], [10**4], [10**4, 10**5])
    budget = scale.pick(30.0, 5.0, 4.0)
    betas = {
        "one": scale.pick([0.5, 0.0], [1.0, 0.01, 0.0], [10.0, 1.0, 0.1, 0.01, 0.001, 0.0]),
        "default": scale.pick([0.5], [0.01], [0.01, 0.0]),
    }
    kinds = scale.pick(["reward", "intransitive"], list(KINDS), list(KINDS))
    return [
        cell(
            kind,
            beta,
            threads,
            [(m, 0) for m in (ordered if kind == "reward" else embedded if kind == "low rank" and beta else dense)],
            budget=budget,
            only=["windgames"] if scale.smoke and threads == "default" else [],
        )
        for threads, several in betas.items()
        for beta in several
        for kind in (kinds if threads == "one" else ["reward", "intransitive"])
    ]


def grid_report(table: pd.DataFrame) -> None:
    ours = table[table.solver == "windgames"]
    sure = certified(ours)
    statement = (
        f"{int(sure.sum())} of {len(ours)} games certified by windgames, residual at most {ours.residual.max():.1e}. "
    )
    told = {level: best_peers(table, level) for level in LEVELS}
    for level, words in LEVELS.items():
        show(f"The fastest peer at equal accuracy, {words}: its time over ours", pivot(told[level]), lost(told[level]))
    inside = best_peers(table.assign(seconds=table.seconds_inside.fillna(table.seconds)), "tight")
    print(f"=> Of cvxpy only the seconds inside the solvers, {LEVELS['tight']}: {lost(inside)}")
    late = table[table.status != "answered"].groupby(["solver", "status"], sort=False).size().reset_index(name="games")
    show("Who gave no answer", late, statement + f"Over time means more than {TIMES} times ours.")
    print("\n" + markdown(told["tight"]))


def certified(ours: pd.DataFrame) -> pd.Series:
    """Return where the residual is what was asked for, and a theorem makes it a distance (at beta = 0: the gap)."""
    return (ours.residual <= 1e-10) & ((ours.beta == 0) | np.isfinite(ours.kl_certificate))


def pivot(told: pd.DataFrame) -> pd.DataFrame:
    return (
        told.pivot_table(index=["threads", "kind", "beta"], columns="m", values="ratio", sort=False)
        .sort_index(axis=1)
        .reset_index()
    )


def lost(told: pd.DataFrame) -> str:
    """Say how often a peer was faster, and where by most."""
    known = told[told.ratio.notna()]
    if known.empty:
        return "Nobody else gave an answer as good."
    slower, worst = known[known.ratio < 1], known.loc[known.ratio.idxmin()]
    where = f"{worst.kind}, m = {worst.m}, beta = {worst.beta:g}"
    where += f", {worst.contexts} contexts" if worst.contexts else ""
    return (
        f"Of {len(told)} games a peer was faster in {len(slower)}, nobody else gave an answer as good in "
        f"{len(told) - len(known)}. Least ratio {worst.ratio:.2g} ({worst.peer}: {where}, threads {worst.threads}); "
        f"median {known.ratio.median():.2g}."
    )


def markdown(told: pd.DataFrame) -> str:
    """Return the README's table: in one thread, the best peer's time over ours, from the least to the largest kind."""
    told = told[told.threads == "one"]
    sizes = [m for m in (10, 100, 300, 1000) if m in set(told.m)]
    lines = ["| beta | " + " | ".join(f"m = {m:,}" for m in sizes) + " |", "| --- " * (1 + len(sizes)) + "|"]
    for beta, rows in told.groupby("beta", sort=False):
        lines.append(f"| {beta:g} | " + " | ".join(_range(rows[rows.m == m].ratio) for m in sizes) + " |")
    return "\n".join(lines)


def _range(ratios: pd.Series) -> str:
    known = ratios.dropna()
    if known.empty:
        return "nobody else"
    least, most = (f"{float(f'{x:.2g}'):,.10g}" for x in (known.min(), known.max()))
    said = f"{least} to {most}"
    return said if len(known) == len(ratios) else f"{said}; nobody else in {len(ratios) - len(known)}"


def batch_configs(scale: Scale) -> list[dict[str, Any]]:
    m, counts = scale.pick(5, 50, 50), scale.pick([1, 5], [1, 10, 100, 1000], [1, 10, 100, 1000, 10_000])
    budget = scale.pick(30.0, 5.0, 4.0)
    return [
        cell(
            kind,
            beta,
            threads,
            [(m, count) for count in counts],
            budget=budget,
            only=list(OURS) if scale.smoke and threads == "default" else [],
        )
        for threads in ("one", "default")
        for kind in ("reward", "intransitive")
        for beta in scale.pick([0.5], [0.1], [0.1, 0.0])
    ]


def batch_report(table: pd.DataFrame) -> None:
    told = best_peers(table, "tight")
    ours = table[table.solver.isin(OURS)].pivot_table(index=GAME, columns="solver", values="seconds", sort=False)
    loop = (ours["windgames, one by one"] / ours["windgames"]).rename("loop_ratio").reset_index()
    shown = told.merge(loop, on=GAME, how="left").drop(columns=["seed", "ours_s", "peer_s"])
    most = loop.loc[loop.loop_ratio.idxmax()]
    show(
        "Many contexts: the best peer's time over ours, and that of our own loop over contexts",
        shown,
        f"One call is up to {most.loop_ratio:.2g} times faster than a loop ({most.kind}, {most.contexts} contexts). "
        + lost(told),
    )


def large_configs(scale: Scale) -> list[dict[str, Any]]:
    m = scale.pick(10**4, 10**6, 10**6)
    priced = scale.pick((0.1,), (10, 1, 0.1, 0.01, 0.001), (10, 1, 0.1, 0.01, 0.001))
    games = [("reward", beta) for beta in priced]
    games += [("log game, weak ties", beta) for beta in scale.pick((2,), (10, 2, 1.1), (10, 2, 1.1))]
    return [cell(kind, beta, "one", [(m, 0)], only=["windgames"], budget=120.0) for kind, beta in games]


def large_cell(config: dict[str, Any], rng: np.random.Generator) -> Rows:
    """Our time, and that of one sort of as many numbers, shortest of three."""
    worker(config["threads"]).stop()  # its memory is to be this game's
    rows, numbers = compare(config, rng), rng.normal(size=config["sizes"][0][0])
    sort, _ = shortest(lambda: np.argsort(numbers))
    return [row | {"argsort_s": sort, "over_15_sorts_plus_1s": row["seconds"] / (15 * sort + 1)} for row in rows]


def large_report(table: pd.DataFrame) -> None:
    game = table[table.kind == "reward"]
    shown = table[["kind", "m", "beta", "residual", "seconds", "argsort_s", "over_15_sorts_plus_1s", "memory_GB"]]
    show(
        "A reward over many responses, against one sort of the same size",
        shown,
        f"win-rate game: at most {game.over_15_sorts_plus_1s.max():.2f} of the time of 15 sorts and a second, residual "
        f"at most {game.residual.max():.1e}, peak memory {table.memory_GB.max():.2f} GB.",
    )


def hard_configs(scale: Scale) -> list[dict[str, Any]]:
    m, many = scale.pick((5, 30), (100, 1000), (300, 2000))
    cases = [(kind, 1e-4, m) for kind in ("hard: reward", "hard: intransitive", "hard: tournament")]
    cases += [("hard: reference to 1e-300", beta, m) for beta in (1.0, 0.1, 0.01, 1e-3, 0.0)]
    cases += [("hard: all ties", beta, n) for n in (1, m) for beta in (0.1, 1e-4, 0.0)]
    cases += [("hard: duplicates", beta, many) for beta in (0.1, 1e-4, 0.0)]
    cases += [("hard: five rewards", beta, 100 * many) for beta in (0.1, 1e-4, 0.0)]
    odd = m + 1 - m % 2
    cases += [("hard: log game, cycle of 0 and 1", beta, odd) for beta in (2.0, 1.1, 0.5, 0.0)]
    cases += [("hard: log game, tournament", beta, m) for beta in (2.0, 1.1, 0.5)]
    cases += [("hard: log game, weak ties", beta, m) for beta in (2.0, 1.1, 0.5)]
    refused = ("log game, zero row", "not constant-sum", "reference with a zero")
    cases += [(f"hard: {what}", 0.1, 3) for what in refused] + [("hard: log game, not constant-sum", 0.0, 3)]
    assert {kind for kind, _, _ in cases} == set(HARD)
    only = ["windgames", "ECOS, tight"] if scale.smoke else DIRECT
    budget = scale.pick(30.0, 10.0, 5.0)
    return [cell(kind, beta, "one", [(n, 0)], budget=budget, only=only) for kind, beta, n in cases]


def hard_report(table: pd.DataFrame) -> None:
    ours = table[table.solver == "windgames"].copy()
    ours["verdict"] = np.select(
        [ours.status != "answered", certified(ours), ours.residual <= 1e-10],
        [ours.status, "certified", "solved, not proven unique"],
        "not solved",
    )
    words = ours.reason.fillna("").astype(str).str[:60]
    shown = ours[["kind", "m", "beta", "verdict", "residual", "gap"]].assign(reason=words)
    others = table[~table.solver.isin(OURS)].groupby("solver", sort=False)
    tight = {solver: f"{int((rows.accuracy == 'tight').sum())} of {len(rows)}" for solver, rows in others}
    counts = ", ".join(f"{n} {verdict}" for verdict, n in ours.verdict.value_counts().items())
    show(
        "Hard cases",
        shown,
        f"windgames: {counts}. Log-probabilities to {TIGHT:.0e} by others: {tight}.",
    )


WAYS: dict[str, tuple[float, float] | None] = {
    "as chosen": None,
    "path, factorised": (inf, 0.0),
    "path, products": (2, 0.0),
    "central path, factorised": (inf, inf),
    "central path, products": (2, inf),
}
"""From how many responses on products with the matrix are tried, and below which price the central path begins."""


@contextmanager
def forced(way: tuple[float, float] | None) -> Iterator[None]:
    """Make `equilibrium` take one of its ways."""
    before = dense.CG_FROM, central.CG_FROM, dense.CENTRAL_PATH_BELOW
    try:
        if way is not None:
            dense.CG_FROM = central.CG_FROM = way[0]  # type: ignore[assignment]
            dense.CENTRAL_PATH_BELOW = way[1]
        with threadpool_limits(1):
            yield
    finally:
        dense.CG_FROM, central.CG_FROM, dense.CENTRAL_PATH_BELOW = before


def shortest(run: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """Return the shortest time of a few, and the result."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        result = run()
        took.append(time.perf_counter() - begun)
    return min(took), result


def choice_configs(scale: Scale) -> list[dict[str, Any]]:
    sizes = scale.pick([5], [100, 200, 400], [50, 100, 200, 400, 800])
    betas = scale.pick([0.1], [1.0, 0.01, 0.001], [1.0, 0.1, 0.03, 0.01, 0.003, 0.001])
    kinds = ["intransitive", "tournament", "lopsided reference", "Bradley-Terry"]
    return [{"kind": kind, "beta": beta, "sizes": sizes} for kind in kinds for beta in betas]


def choice_cell(config: dict[str, Any], _rng: np.random.Generator) -> Rows:
    rows = []
    for m in config["sizes"]:
        game = Instance(config["kind"], m, config["beta"]).make()
        matrix = np.array(game.preference.matrix())
        with threadpool_limits(1):
            lu = shortest(lambda: dgetrf(matrix), 5)[0]  # noqa: B023
        for way, limits in WAYS.items():
            with forced(limits):
                seconds, found = shortest(lambda: wg.equilibrium(game))  # noqa: B023
            one = {"kind": config["kind"], "m": m, "beta": config["beta"], "way": way, "seconds": seconds}
            one |= {"systems": int(found.steps), "residual": float(found.residual), "factorisation_s": lu}
            rows.append(one | {"system_in_factorisations": seconds / max(1, int(found.steps)) / lu})
    return rows


def choice_report(table: pd.DataFrame) -> None:
    by_way = table.pivot_table(index=["kind", "m", "beta"], columns="way", values="seconds", sort=False)
    best = by_way.drop(columns="as chosen").min(axis=1)
    ratios = by_way.div(best, axis=0)
    ours, worst = table[table.way == "as chosen"], ratios["as chosen"].idxmax()
    shown = ratios.groupby(["m", "beta"]).agg(lambda x: float(np.exp(np.log(x).mean()))).reset_index()
    large = ours[ours.m >= ours.m.max()].system_in_factorisations
    show(
        "Time of each way over the quickest one's (geometric mean over four kinds of game), one thread",
        shown,
        f"The way that is chosen takes {np.exp(np.log(ratios['as chosen']).mean()):.2f} times the quickest way's time, "
        f"at most {ratios['as chosen'].max():.2g} ({worst[0]}, m = {worst[1]}, beta = {worst[2]:g}); "
        f"{int(ours.systems.max())} systems at most, median {ours.systems.median():g}; of {ours.m.max()} responses one "
        f"takes {large.min():.2g} to {large.max():.2g} times as long as a factorisation.",
    )


def path_configs(scale: Scale) -> list[dict[str, Any]]:
    sizes = scale.pick([4], [10, 100], [10, 100, 300])
    kinds, seeds = ["intransitive"] if scale.smoke else list(KINDS), scale.pick([0], [0], [0, 1])
    return [{"kind": kind, "m": m, "seed": seed} for kind in kinds for m in sizes for seed in seeds]


def path_cell(config: dict[str, Any], _rng: np.random.Generator) -> Rows:
    game, grid = Instance(config["kind"], config["m"], 1.0, seed=config["seed"]).make(), np.geomspace(10, 1e-3, 20)
    with threadpool_limits(1):
        together, found = shortest(lambda: wg.equilibrium_path(game, grid), 2)
        each = [shortest(lambda: wg.equilibrium(game.replace(beta=b)), 2) for b in grid]  # noqa: B023
    systems = [int(solution.steps) for _, solution in each]
    row = {"systems": int(np.sum(found.steps)), "systems_each": sum(systems), "systems_hardest": max(systems)}
    row |= {
        "seconds": together,
        "seconds_each": sum(took for took, _ in each),
        "residual": float(np.max(found.residual)),
    }
    return [config | row]


def path_report(table: pd.DataFrame) -> None:
    few = table[table.kind != "reward"]  # whose systems cost no more than a payoff: they are not saved
    hardest, each = few.systems / few.systems_hardest, few.systems / few.systems_each
    show(
        "Twenty values of beta from 10 to 0.001, one call against each alone",
        table,
        f"Systems of the call, but for rewards: {hardest.median():.2g} times those of the hardest beta alone, at "
        f"most {hardest.max():.2g}; {each.median():.2g} of those of all alone, at most {each.max():.2g}. Seconds: "
        f"{(table.seconds / table.seconds_each).median():.2g} of all alone.",
    )


STUDIES = {
    "agreement": Study(agreement_configs, compare, agreement_report, one_job=True),
    "grid": Study(grid_configs, compare, grid_report, one_job=True),
    "batch": Study(batch_configs, compare, batch_report, one_job=True),
    "large": Study(large_configs, large_cell, large_report, one_job=True),
    "hard": Study(hard_configs, compare, hard_report, one_job=True),
    "choice": Study(choice_configs, choice_cell, choice_report, one_job=True),
    "path": Study(path_configs, path_cell, path_report, one_job=True),
}


@dataclass
class Config:
    """What to measure."""

    study: Literal["all"] | Literal[*STUDIES] = "all"  # type: ignore[valid-type]
    """Which study to run."""
    smoke: bool = False
    """Small games, for tests."""
    full: bool = False
    """The games of the committed tables."""
    fresh: bool = False
    """Forget saved cells: times of another day or machine are not times of this one."""
    results: Path | None = None
    """Folder of tables and pictures. By default benchmarks/quick; with --full the committed tables in
    benchmarks/results and pictures in figures."""
    pictures: bool = True
    """Draw the figure at the end."""


def main(config: Config) -> None:
    if config.smoke and config.full:
        raise SystemExit("--smoke and --full exclude each other.")
    results = config.results or (RESULTS if config.full else QUICK)
    results.mkdir(parents=True, exist_ok=True)
    skipped = {solver.name: solver.missing for solver in SOLVERS if solver.missing}
    for name, packages in skipped.items():
        print(f"Skipped: {name} ({', '.join(packages)} not installed)")
    code = [ROOT / "windgames", HERE / "_study.py", *HERE.glob("solvers*.py")]
    versions = " ".join(solver.version for solver in SOLVERS if not solver.missing)
    for name in STUDIES if config.study == "all" else [config.study]:
        run_study(
            STUDIES[name],
            f"solvers_{name}",
            f"solvers_{name}",
            Scale(config.smoke, config.full),
            results,
            f"{fingerprint(*code)} {versions}",
            asdict(config) | {"results": results, "skipped": sorted(skipped)},
            fresh=config.fresh,
        )
    if config.pictures and config.study in ("all", "grid"):
        draw(results, ["solvers"])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
