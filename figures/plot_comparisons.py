# %% [markdown]
# # Real comparisons as games
# The equilibrium against beta, by name, with bands over bootstrap draws; and the share of the log-odds that no reward
# explains: as seen, as comparisons of a
# Bradley-Terry model would show it, and without noise, with an interval.

# %%
import matplotlib.pyplot as plt
import style

table, shares = style.read("comparisons_equilibria"), style.read("comparisons_cyclic")
wanted = [name for name in ("language models", "baseball 1987", "chess") if name in set(table.set)]
ZERO = 4e-4  # where beta = 0 is drawn on the logarithmic axis

# %%
fig, axes = plt.subplots(2, 2, figsize=(8.6, 6.0), squeeze=False)
for axis, name in zip(axes.flat, wanted, strict=False):
    rows = table[table.set == name]
    shown = rows.groupby("item").policy.max().sort_values(ascending=False).index[:4]
    for k, (item, colour) in enumerate(zip(shown, style.CYCLE, strict=False)):
        one = rows[rows.item == item].sort_values("beta")
        path, end = one[one.beta > 0], one[one.beta == 0]
        axis.plot(path.beta, path.policy, color=colour, label=item)
        axis.fill_between(path.beta, path.low, path.high, color=colour, alpha=0.15, linewidth=0)
        axis.errorbar(
            [ZERO * (0.82 + 0.12 * k)],
            end.policy,
            [end.policy - end.low.clip(upper=end.policy), end.high.clip(lower=end.policy) - end.policy],
            color=colour,
            marker="o",
            capsize=2,
        )
    axis.set(xscale="log", xlabel=r"$\beta$", ylabel="equilibrium policy", title=name, ylim=(-0.02, 1.33))
    axis.set_xticks([ZERO, 1e-3, 1e-2, 1e-1, 1], ["0", "0.001", "0.01", "0.1", "1"])
    axis.minorticks_off()
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axis.legend(loc="upper center", ncols=2)

# %%
axis = axes.flat[len(wanted)]
for k, row in enumerate(shares.itertuples()):
    axis.plot([row.noise_low, row.noise_high], [k - 0.15] * 2, color="0.75", linewidth=5, solid_capstyle="butt")
    axis.errorbar(
        [row.corrected],
        [k + 0.15],
        xerr=[[max(row.corrected - row.low, 0)], [max(row.high - row.corrected, 0)]],
        color=style.RED,
        marker="o",
        capsize=2,
    )
    axis.plot([row.share], [k - 0.15], color="k", marker="|", markersize=9, linestyle="")
axis.plot([], [], color="0.75", linewidth=5, label="seen if it were Bradley-Terry")
axis.plot([], [], color="k", marker="|", markersize=9, linestyle="", label="seen")
axis.plot([], [], color=style.RED, marker="o", label="without noise, 90% interval")
axis.set_yticks(range(len(shares)), shares.set)
axis.set(
    xlabel="share of the log-odds that no reward explains", title="how cyclic?", xlim=(-0.02, 1), ylim=(-0.6, None)
)
axis.invert_yaxis()
axis.legend(loc="lower right")
for axis in axes.flat[len(wanted) + 1 :]:
    axis.set_axis_off()

# %%
style.save(fig, "comparisons", style.table_path("comparisons_equilibria"))
