# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour for theorists
# Preference games, their equilibria, and rules that find them, in ten short stops. Every claim is an assertion.
#
# To open this file as a notebook, install `pip install ".[notebook]"`, run `jupyter lab`, right-click
# `figures/tour.py` and choose *Open With, Notebook*; or run it as a script, `python figures/tour.py`.

# %%
import matplotlib.pyplot as plt
import numpy as np

import windgames as wg

rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. A preference, a reference and beta: a game
# Twelve responses with rewards. The larger reward wins, and a tie counts one half. $\beta$ is the price of leaving the
# reference policy, in win rate per nat of KL divergence.

# %%
reward = np.round(rng.normal(size=12), 1)
ref = rng.dirichlet(np.ones(12))
preference = wg.RewardPreference(reward)
game = wg.WinRateGame(preference, ref, beta=0.1)
game

# %% [markdown]
# ## 2. Its equilibrium
# The unique policy $\pi^*$ that is its own best response. The solution carries a proof of its accuracy: `residual` is
# the Hilbert distance $h(\pi,BR(\pi))$ between the policy and its best response, and the two `proven` lines bound
# the distance to $\pi^*$, which nobody needs to know for that.

# %%
solution = wg.equilibrium(game)
assert solution.converged
assert solution.residual < 1e-10
best_response = np.exp(game.best_response(solution.log_policy))
assert np.allclose(solution.policy, best_response, atol=1e-12)
assert np.isclose(solution.policy @ preference.matrix() @ solution.policy, 0.5)
solution

# %%
solution.plot()
plt.show()

# %% [markdown]
# ## 3. An independent check
# The game is also a convex program. A conic solver that shares no code with `windgames` finds the same policy.

# %%
verdict = wg.verify(game, solution)
assert verdict
assert verdict.distance < 1e-8
verdict

# %% [markdown]
# ## 4. A rule and its rate
# WIND contracts $KL(\pi^*\|\pi_t)$ by $1/(1+\beta\eta)$ a step, at the last iterate. The paper proves it for steps up
# to $\eta=\beta$; theory 5.2 proves it up to $4\beta/L^2$ with the game's own interaction constant $L$, here $1/2$.

# %%
paper = wg.solve(game, wg.wind(eta=game.beta), tol=1e-6, max_steps=4000, reference_solution=solution)
largest = wg.solve(game, wg.wind(), tol=1e-6, reference_solution=solution)
extra = wg.solve(game, wg.extragradient(), tol=1e-6, reference_solution=solution)
for found in (paper, largest, extra):
    print(f"{found.method:>13}, eta = {found.settings['eta']:6.3f}: {int(found.steps):4d} steps, {found.trace.theorem}")
    assert found.converged
    assert np.all(found.trace.kl_from_solution <= found.trace.bound * (1 + 1e-6) + 1e-12)
assert preference.interaction == 0.5
assert np.isclose(largest.settings["eta"], 16 * game.beta)
assert extra.steps < largest.steps < paper.steps

# %%
axes = largest.trace.plot()
axes.set_title("WIND with the largest proven step")
plt.show()

# %% [markdown]
# ## 5. Certificates along the way
# Any policy bounds its own distance to the equilibrium: $KL(\pi\|\pi^*)\le KL(\pi\|BR(\pi))$ (theory 2.3). Mind the
# direction: the rates above are about $KL(\pi^*\|\pi)$.

# %%
assert np.all(largest.trace.kl_to_solution <= largest.trace.kl_certificate * (1 + 1e-6) + 1e-14)
tightness = largest.trace.kl_certificate[1:] / np.maximum(largest.trace.kl_to_solution[1:], 1e-300)
print(f"certificate / truth: {tightness[:8].round(2)}")

# %% [markdown]
# ## 6. Best-of-n
# The exact operator is a semigroup: best of 3 of best of 2 is best of 6. Iterate it with weight $\alpha_1$ on best-of-n
# of the current policy, $\alpha_2$ on the current policy and the rest on the reference: the limit is the equilibrium
# of a log-win-rate game (theory 3.6): always for the power form, for $n=2$ and half ties for the exact operator.

# %%
start = game.log_ref
best_of_two_then_three = wg.best_of_n(preference, wg.best_of_n(preference, start, 2), 3)
assert np.allclose(best_of_two_then_three, wg.best_of_n(preference, start, 6))

n, alpha1, alpha2 = 2, 0.3, 0.2
weak = wg.RewardPreference(reward, ties="weak")
log_game = wg.LogWinRateGame.from_best_of_n(weak, ref, n, alpha1, alpha2)
limit = wg.solve(log_game, wg.iterative_bon(n, alpha1, alpha2), tol=1e-11)
assert np.allclose(limit.policy, wg.equilibrium(log_game).policy, atol=1e-9)

exact_game = wg.BestOfNGame.from_best_of_n(preference, ref, n, alpha1, alpha2)
exact_limit = wg.solve(exact_game, wg.iterative_bon(n, alpha1, alpha2), tol=1e-11)
half_ties = wg.equilibrium(wg.LogWinRateGame(preference, ref, log_game.beta))
assert np.allclose(exact_limit.policy, half_ties.policy, atol=1e-9)
distance = np.abs(exact_limit.policy - limit.policy).sum() / 2
print(f"beta = {log_game.beta:.3f}; total variation between exact and power form: {distance:.3f}")

# %% [markdown]
# ## 7. A phase transition
# For $n\alpha_1+\alpha_2<1$, which is $\beta>1$, a step contracts and there is one equilibrium. Beyond, iterative
# best-of-n may collapse onto the best response, and where it ends may depend on where it starts.

# %%
two = wg.RewardPreference([0.0, 1.0], ties="weak")
trap = wg.LogWinRateGame.from_best_of_n(two, [0.99, 0.01], 2, 2 / 3)
rule = wg.iterative_bon(2, 2 / 3)
from_ref = wg.solve(trap, rule)
from_top = wg.solve(trap, rule, start=np.log([0.01, 0.99]), max_steps=200)
print(f"beta = {trap.beta:.2f}; probability of the better response at the end:")
print(f"  {from_ref.policy[1]:.4f} from the reference, {from_top.policy[1]:.4f} from the other side")
assert from_ref.policy[1] < 0.02
assert from_top.policy[1] > 0.999
assert wg.bounds.collapse_index(trap.beta, 0.01) > 1
certain = wg.LogWinRateGame(two, [0.75, 0.25], trap.beta)
assert wg.bounds.collapse_index(certain.beta, 0.25) < 1
assert wg.equilibrium(certain).policy[1] > 1 - 1e-12

# %% [markdown]
# ## 8. The win-rate game never collapses, and agrees as beta vanishes
# Its equilibrium keeps full support at every $\beta$. Its distance to the log-win-rate game's is exponentially small in
# $1/\beta$ (theory 4.2).

# %%
betas = np.geomspace(0.5, 0.02, 15)
top = float(ref[reward == reward.max()].sum())
distances = []
for beta in betas:
    of_win_rate = wg.equilibrium(wg.WinRateGame(preference, ref, beta))
    of_log_win_rate = wg.equilibrium(wg.LogWinRateGame(weak, ref, beta))
    assert np.all(of_win_rate.support)
    distances.append(float(np.abs(of_win_rate.policy - of_log_win_rate.policy).sum() / 2))
bound = wg.bounds.equilibria_distance_bound(betas, top)
assert np.all(distances <= bound + 1e-12)
assert distances[-1] < 1e-3 * max(distances)

# %%
fig, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
axes.plot(1 / betas, distances, "o-", label="measured")
axes.plot(1 / betas, bound, "--", label="bound of theory 4.2")
axes.set(yscale="log", xlabel=r"$1/\beta$", ylabel="total variation", title="Between the equilibria of the two games")
axes.legend()
plt.show()

# %% [markdown]
# ## 9. No reward behind it
# Preferences may run in circles. On rock, paper, scissors with a lopsided reference, multiplicative weights (SPPO in
# its population form) circle outwards, while WIND's last iterate converges.

# %%
circle = wg.MatrixPreference([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
cycle = wg.WinRateGame(circle, [0.7, 0.2, 0.1], beta=0.1)
centre = wg.equilibrium(cycle)
wind = wg.solve(cycle, wg.wind(), tol=1e-8, reference_solution=centre)
sppo = wg.solve(cycle, wg.sppo(0.5), max_steps=len(wind.trace.steps) - 1, reference_solution=centre)
assert wind.converged
assert not sppo.converged
assert sppo.trace.kl_from_solution[-1] > sppo.trace.kl_from_solution[0]

fig, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
for found in (wind, sppo):
    axes.plot(found.trace.steps, found.trace.kl_from_solution, label=found.method)
axes.set(yscale="log", xlabel="step $t$", ylabel=r"$KL(\pi^*\|\pi_t)$", title=r"Rock, paper, scissors at $\beta=0.1$")
axes.legend()
plt.show()

# %% [markdown]
# ## 10. Without regularisation
# At $\beta=0$ equilibria are von Neumann winners, and there may be many. `equilibrium` returns the one nearest to the
# reference, the limit of the regularised equilibria (theory 2.6), found along a central path (theory 6.7).

# %%
winner = wg.equilibrium(wg.WinRateGame(circle, [0.7, 0.2, 0.1], beta=0.0))
assert np.allclose(winner.policy, 1 / 3, atol=1e-8)
winner
