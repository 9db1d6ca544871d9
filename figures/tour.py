# %% [markdown]
# # A tour for theorists
# Preference games, their equilibria, and rules that find them, in ten short stops. Every claim is an
# assertion: run it as a script (`python figures/tour.py`) or open it as a notebook.

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

import windgames as wg
from windgames import bounds

rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. A preference, a reference, a price: a game
# Twelve responses with rewards; the larger reward wins, ties count one half. `beta` is the price, in win
# rate per nat, of leaving the reference policy.

# %%
reward = np.round(rng.normal(size=12), 1)
ref = rng.dirichlet(np.ones(12))
preference = wg.RewardPreference(reward)
game = wg.WinRateGame(preference, ref, beta=0.1)
print(game)

# %% [markdown]
# ## 2. Its equilibrium
# The unique policy that is its own best response. It proves its own accuracy: `residual` is the Hilbert
# distance to the best response, the certificates bound the distance to the equilibrium, which nobody has to
# know.

# %%
solution = wg.equilibrium(game)
print(solution)
assert solution.converged
assert solution.residual < 1e-10
best_response = np.exp(game.best_response(solution.log_policy))
assert np.allclose(solution.policy, best_response, atol=1e-12)
assert np.isclose(solution.policy @ preference.matrix() @ solution.policy, 0.5)

# %% [markdown]
# ## 3. Somebody else's opinion
# The game is also a convex program. A conic solver that shares no code with ours finds the same policy.

# %%
verdict = wg.verify(game, solution)
print(verdict)
assert verdict
assert verdict.distance < 1e-8

# %% [markdown]
# ## 4. A rule and its rate
# WIND contracts $KL(\pi^*\|\pi_t)$ by $1/(1+\beta\eta)$ a step, at the last iterate. The paper proves it up
# to $\eta=\beta$, theory 5.2 up to $4\beta/L^2$ with the game's own interaction constant $L$, here 1/2.

# %%
paper = wg.solve(game, wg.wind(eta=game.beta), tol=1e-6, max_steps=4000, reference_solution=solution)
largest = wg.solve(game, wg.wind(), tol=1e-6, reference_solution=solution)
twice = wg.solve(game, wg.extragradient(), tol=1e-6, reference_solution=solution)
for run in (paper, largest, twice):
    print(f"{run.method:>13}, eta = {run.settings['eta']:6.3f}: {int(run.steps):4d} steps, {run.trace.theorem}")
    assert run.converged
    assert np.all(run.trace.kl_from_solution <= run.trace.bound * (1 + 1e-6) + 1e-12)
assert preference.interaction == 0.5
assert np.isclose(largest.settings["eta"], 16 * game.beta)
assert twice.steps < largest.steps < paper.steps

# %% [markdown]
# ## 5. Certificates along the way
# Any policy bounds its own distance to the equilibrium: $KL(\pi\|\pi^*)\le KL(\pi\|BR(\pi))$. Mind the
# direction, it is not that of the rate.

# %%
assert np.all(largest.trace.kl_to_solution <= largest.trace.kl_certificate * (1 + 1e-6) + 1e-14)
tightness = largest.trace.kl_certificate[1:] / np.maximum(largest.trace.kl_to_solution[1:], 1e-300)
print(f"certificate / truth: {tightness[:8].round(2)}")

# %% [markdown]
# ## 6. Best-of-n
# The exact operator is a semigroup. Iterating it, with some of the old policy and of the reference mixed
# in, solves a log-win-rate game; the power form does so exactly, the exact operator for n = 2 and half
# ties.

# %%
start = game.log_ref
twice_then_thrice = wg.best_of_n(preference, wg.best_of_n(preference, start, 2), 3)
assert np.allclose(twice_then_thrice, wg.best_of_n(preference, start, 6))

n, alpha1, alpha2 = 2, 0.3, 0.2
weak = wg.RewardPreference(reward, ties="weak")
log_game = wg.LogWinRateGame.from_best_of_n(weak, ref, n, alpha1, alpha2)
limit = wg.solve(log_game, wg.iterative_bon(n, alpha1, alpha2), tol=1e-11)
assert np.allclose(limit.policy, wg.equilibrium(log_game).policy, atol=1e-9)

exact_game = wg.BestOfNGame.from_best_of_n(preference, ref, n, alpha1, alpha2)
exact_limit = wg.solve(exact_game, wg.iterative_bon(n, alpha1, alpha2), tol=1e-11)
halves = wg.equilibrium(wg.LogWinRateGame(preference, ref, log_game.beta))
assert np.allclose(exact_limit.policy, halves.policy, atol=1e-9)
print(
    f"beta = {log_game.beta:.3f}; exact against power form: {np.abs(exact_limit.policy - limit.policy).sum() / 2:.3f}"
)

# %% [markdown]
# ## 7. A phase transition
# For $n\alpha_1+\alpha_2<1$, which is $\beta>1$, a step contracts and there is one equilibrium. Beyond,
# iterative best-of-n may collapse, and where it ends may depend on where it starts.

# %%
two = wg.RewardPreference([0.0, 1.0], ties="weak")
trap = wg.LogWinRateGame.from_best_of_n(two, [0.99, 0.01], 2, 2 / 3)
rule = wg.iterative_bon(2, 2 / 3)
from_ref = wg.solve(trap, rule)
from_top = wg.solve(trap, rule, start=np.log([0.01, 0.99]), max_steps=200)
print(
    f"beta = {trap.beta:.2f}: better response {from_ref.policy[1]:.4f} from rho, {from_top.policy[1]:.4f} from the top"
)
assert from_ref.policy[1] < 0.02
assert from_top.policy[1] > 0.999
assert bounds.collapse_index(trap.beta, 0.01) > 1
sure = wg.LogWinRateGame(two, [0.75, 0.25], trap.beta)
assert bounds.collapse_index(sure.beta, 0.25) < 1
assert wg.equilibrium(sure).policy[1] > 1 - 1e-12

# %% [markdown]
# ## 8. The win-rate game never collapses, and agrees as beta vanishes
# Its equilibrium keeps full support at every `beta`; its distance to the other game's is exponentially
# small in $1/\beta$.

# %%
betas = np.geomspace(0.5, 0.02, 15)
top = float(ref[reward == reward.max()].sum())
distances = []
for beta in betas:
    here = wg.equilibrium(wg.WinRateGame(preference, ref, beta))
    there = wg.equilibrium(wg.LogWinRateGame(weak, ref, beta))
    assert np.all(here.support)
    distances.append(float(np.abs(here.policy - there.policy).sum() / 2))
assert np.all(distances <= bounds.equilibria_distance_bound(betas, top) + 1e-12)
assert distances[-1] < 1e-3 * max(distances)

# %% [markdown]
# ## 9. No reward behind it
# Preferences may run in circles. Rock, paper, scissors with a lopsided reference: multiplicative weights
# (SPPO's population form) circle outwards, WIND's last iterate converges.

# %%
circle = wg.MatrixPreference([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
cycle = wg.WinRateGame(circle, [0.7, 0.2, 0.1], beta=0.1)
centre = wg.equilibrium(cycle)
wind = wg.solve(cycle, wg.wind(), tol=1e-8, reference_solution=centre)
sppo = wg.solve(cycle, wg.sppo(0.5), max_steps=len(wind.trace.steps) - 1, reference_solution=centre)
assert wind.converged
assert not sppo.converged
assert sppo.trace.kl_from_solution[-1] > sppo.trace.kl_from_solution[0]
print(
    f"after {int(wind.steps)} steps: WIND {wind.trace.kl_from_solution[-1]:.1e}, "
    f"SPPO {sppo.trace.kl_from_solution[-1]:.2f}"
)

# %% [markdown]
# ## 10. Without regularisation
# At `beta = 0` the game is a linear program; `equilibrium` returns the winner nearest to the reference.

# %%
free = wg.equilibrium(wg.WinRateGame(circle, [0.7, 0.2, 0.1], beta=0.0))
assert np.allclose(free.policy, 1 / 3, atol=1e-8)

# %% [markdown]
# ## In one picture

# %%
fig, axes = plt.subplots(1, 3, figsize=(11.0, 3.3))
runs = (
    (paper, style.GREEN, r"$\eta=\beta$"),
    (largest, style.BLUE, r"$\eta=16\beta$"),
    (twice, style.RED, ""),
)
for run, colour, words in runs:
    kl = run.trace.kl_from_solution
    axes[0].plot(run.trace.steps + 1, kl, color=colour, label=f"{run.method} {words}")
    axes[0].plot(run.trace.steps + 1, run.trace.bound, color=colour, **style.BOUND)
axes[0].set(
    xscale="log",
    yscale="log",
    ylim=(1e-13, 20),
    xlabel="step $t+1$",
    ylabel=r"$KL(\pi^*\,\|\,\pi_t)$",
    title=rf"Rates at $\beta={game.beta:g}$, bounds dashed",
)
axes[0].legend(loc="lower left")
axes[1].plot(betas, distances, **style.method("win-rate"), label="measured")
axes[1].plot(betas, bounds.equilibria_distance_bound(betas, top), color=style.BLUE, label="bound", **style.BOUND)
axes[1].set(
    xscale="log",
    yscale="log",
    xlabel=r"$\beta$",
    ylabel="total variation",
    title="Log-win-rate against win-rate equilibrium",
)
axes[1].xaxis.set_minor_formatter(plt.NullFormatter())
axes[1].set_xticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
axes[1].legend()
for run, name in ((wind, "WIND"), (sppo, "SPPO")):
    axes[2].plot(run.trace.steps, run.trace.kl_from_solution, label=name, color=style.METHODS[name][0])
axes[2].set(yscale="log", xlabel="step $t$", ylabel=r"$KL(\pi^*\,\|\,\pi_t)$", title=r"A cycle of three, $\beta=0.1$")
axes[2].legend()
style.save(fig, "tour")
