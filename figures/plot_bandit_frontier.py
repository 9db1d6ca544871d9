# %% [markdown]
# # Win rate against the reference, and what it costs
# Curves are exact: the game's equilibria and best-of-n on 200 atoms, and the closed forms without atoms. Points are
# learned: one for each beta, or the way a learner takes that nothing holds back.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("bandit_frontier")
fig, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.7), width_ratios=[1.3, 1])
CURVES = {
    "equilibrium": ("equilibria of the game", {"color": style.BLUE}),
    "best-of-n": ("best-of-n", {"color": style.GREEN}),
    "continuum, game": ("the game without atoms", {"color": style.BLUE, "linestyle": ":"}),
    "continuum, best-of-n": ("best-of-n without atoms", {"color": style.GREEN, "linestyle": ":"}),
}

# %%
for axis in (left, right):
    for part, (words, look) in CURVES.items():
        one = table[table.part == part].sort_values("kl_ref")
        axis.plot(one.kl_ref, one.win_rate, label=words, **look)
    for part in ("WIND", "REINFORCE"):
        one = table[table.part == part]
        axis.plot(one.kl_ref, one.win_rate, label=f"{part}, learned", **style.method(part, linestyle=""))
    for part in ("SPPO", "J-BOND", "best-of-n distillation"):
        one = table[table.part == part].sort_values("round")
        axis.plot(
            one.kl_ref, one.win_rate, label=f"{part}, on its way", **style.method(part, linewidth=0.8, markersize=3)
        )
left.set(xlabel=r"$KL(\pi\,\|\,\rho)$", ylabel="win rate against the reference", ylim=(0.49, 1.01), title="Frontier")
right.set(xlim=(0, 1.2), ylim=(0.49, 0.9), xlabel=r"$KL(\pi\,\|\,\rho)$", title="Near the reference")
lines, names = left.get_legend_handles_labels()
fig.legend(lines, names, loc="outside right center")

# %%
style.save(fig, "bandit_frontier", style.table_path("bandit_frontier"))
