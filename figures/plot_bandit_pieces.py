# %% [markdown]
# # The pieces of the finite-time guarantee
# Left: what a step's error consists of in a log-linear class. Middle: the divergence, the bound with the errors as they
# were, and the bound from coverage (theory 7.8). Right: generalisation of one step beside the stability bound
# (theory 7.9).

# %%
import matplotlib.pyplot as plt
import numpy as np
import style

table = style.read("bandit_pieces")
runs, rows = table[table.part == "sum"], table[table.part == "generalise"].sort_values("contexts")
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(11.0, 3.5))

# %%
shades = plt.cm.viridis(np.linspace(0, 0.85, runs.dimension.nunique()))
for (d, one), colour in zip(runs.groupby("dimension"), shades, strict=True):
    left.plot(one["round"], one.realisability, color=colour, label=f"d = {d:g}")
    left.plot(one["round"], one.estimation, color=colour, linestyle=":")
    middle.plot(one["round"], one.kl, color=colour, label=f"d = {d:g}")
    middle.plot(one["round"], one.bound_exact_cross, color=colour, **style.BOUND)
    middle.plot(one["round"], one.bound_coverage, color=colour, linestyle="-.", linewidth=0.8)
left.set(
    yscale="log",
    xlabel="round",
    ylabel="root mean square, win rate",
    title="Realisability (solid), estimation (dotted)",
)
left.legend()
middle.set(
    yscale="log", xlabel="round", ylabel=r"$KL(\pi^*\,\|\,\pi_t)$", title="Measured; errors as they were; coverage"
)
middle.legend()
right.errorbar(rows.contexts, rows.gap, yerr=2 * rows.gap_error, color=style.BLUE, marker="o", label="measured gap")
right.plot(rows.contexts, rows.bound, color=style.BLUE, label="stability bound", **style.BOUND)
right.set(xscale="log", yscale="log", xlabel="contexts", ylabel="fresh risk minus own risk", title="One step")
right.set_xticks(rows.contexts, [f"{n:g}" for n in rows.contexts])
right.minorticks_off()
right.legend()

# %%
style.save(fig, "bandit_pieces", style.table_path("bandit_pieces"))
