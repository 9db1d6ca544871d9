# %% [markdown]
# # When does self-play matter?
# Three responses; left, a preference that is a difference of rewards, so that L = 0: all methods see the same reward.
# Middle: rock-paper-scissors. RLHF on the win rates against the reference takes one step and stays there; REINFORCE in
# self-play, exact, with the step that was best on the reward, circles. Right: in between.

# %%
import matplotlib.pyplot as plt
import style

table = style.read("bandit_selfplay")
curve, ends = table[table.part == "curve"], table[table.part == "end"]
rlhf = ends[ends.method == "RLHF"]
rates = sorted(ends[ends.method == "REINFORCE"].step.unique())
GREYS = ("0.75", "0.6", "0.4", "0.1")
KL = r"$KL(\pi^*\,\|\,\pi)$ to the equilibrium"

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 3.9))
for axis, share, title in zip(
    axes, (0.0, 1.0), ("a difference of rewards, L = 0", "rock-paper-scissors"), strict=False
):
    here = curve[curve.share == share]
    one = here[(here.method == "WIND") & (here["round"] > 0)]
    axis.plot(one["round"], one.kl, label=r"WIND, largest proven step", **style.method("WIND", marker=""))
    for rate, grey in zip(rates, GREYS, strict=True):
        one = here[(here.method == "REINFORCE") & (here.step == rate) & (here["round"] > 0)]
        axis.plot(one["round"], one.kl, color=grey, marker="", label=f"REINFORCE, self-play, step {rate:g}")
    level = max(float(rlhf[rlhf.share == share].kl.iloc[0]), 1e-12)
    axis.axhline(level, color=style.RED, linestyle=(0, (4, 2)), label="RLHF on the reference's win rates")
    axis.set(xscale="log", yscale="log", ylim=(3e-13, 100), xlabel="round", title=title)
axes[0].set_ylabel(KL + r" ($10^{-12}$: or less)")
axis = axes[2]
axis.plot(rlhf.share, rlhf.kl, color=style.RED, linestyle=(0, (4, 2)), marker="")
axis.plot(rlhf.share, rlhf.bound, color=style.RED, **style.BOUND | {"linestyle": ":"}, label="bound of theory 2.9")
for rate, grey in zip(rates, GREYS, strict=True):
    one = ends[(ends.method == "REINFORCE") & (ends.step == rate)]
    axis.plot(one.share, one.kl.clip(1e-12), color=grey, marker="")
one = ends[ends.method == "WIND"]
axis.plot(one.share, one.kl.clip(1e-12), **style.method("WIND", marker=""))
axis.set(yscale="log", ylim=(3e-13, 100), xlabel="share of the circle", title="where each ends")
found = {}
for axis in axes:
    handles, words = axis.get_legend_handles_labels()
    found |= dict(zip(words, handles, strict=True))
fig.legend(found.values(), found.keys(), loc="outside lower center", ncols=3)

# %%
style.save(fig, "bandit_selfplay", style.table_path("bandit_selfplay"))
