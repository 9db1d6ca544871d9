# %% [markdown]
# # Win rate against the reference, and what it costs
# Curves are exact: the game's equilibria and best-of-n for real n on 200 atoms, and the closed forms without atoms.
# Left: points are learned from comparisons, one for each beta. Right: the way of learners that nothing holds back,
# from the reference outward.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("bandit_frontier")
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4.6), sharey=True)
CURVES = {
    "equilibrium": ("equilibria of the game, 25 values of β", {"color": style.BLUE, "marker": "."}),
    "continuum, game": ("the same without atoms (closed form)", {"color": style.BLACK, "linestyle": ":"}),
    "best-of-n": ("best-of-n for real n ≥ 1", {"color": style.GREEN}),
    "continuum, best-of-n": ("the same without atoms (closed form)", {"color": style.BLACK, "linestyle": "--"}),
}

# %%
for axis in (left, right):
    for part, (words, look) in CURVES.items():
        one = table[table.part == part].sort_values("kl_ref")
        width = 2.2 if "continuum" not in part else 1.1
        axis.plot(one.kl_ref, one.win_rate, label=words if axis is left else None, linewidth=width, **look)
for part, words in (("WIND", "WIND, learned from comparisons"), ("REINFORCE", "REINFORCE, learned from the reward")):
    one = table[table.part == part]
    left.plot(one.kl_ref, one.win_rate, label=f"{words}, one point per β", **style.method(part, linestyle="", ms=7))
for row in table[(table.part == "WIND") & (table.beta != 0.02)].itertuples():  # it lies on that of 0.05
    style.note(left, row.kl_ref + 0.1, row.win_rate - 0.024, rf"$\beta={row.beta:g}$", color=style.BLUE)
for part in ("SPPO", "J-BOND", "best-of-n distillation"):
    one = table[table.part == part].sort_values("round")
    right.plot(one.kl_ref, one.win_rate, label=part, **style.method(part, linewidth=1.0, ms=4))
left.set(
    ylabel="win rate against the reference", xlim=(-0.05, 5.6), ylim=(0.49, 1.01), title="Exact curves, learned points"
)
right.set(xlim=(-0.05, 5.6), title="Learners without a pull to ρ, on their way")
for axis in (left, right):
    axis.set_xlabel("KL(π‖ρ), nats: distance from the reference")
    axis.legend(loc="lower right")

# %%
style.save(fig, "bandit_frontier", style.table_path("bandit_frontier"))
