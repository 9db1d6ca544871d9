"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set(), state = { axis: "round", run: 0, round: null, prompt: 0, sort: "reward", find: "" };
const colour = i => `var(--s${i % 8})`;
const dash = i => ["", "7 4", "2 3"][Math.floor(i / 8) % 3];
const visible = () => data.runs.map((run, i) => ({ run, i })).filter(r => !hidden.has(r.i));

function el(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "circle", "text", "rect"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter(c => c !== null));
  return node;
}
const isNumber = x => typeof x === "number";
function shown(x) {
  if (!isNumber(x)) return x === null || x === undefined ? "" : String(x);
  if (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e6)) return x.toExponential(2);
  return String(Number.isInteger(x) ? x : Number(x.toPrecision(4)));
}

// -- charts ---------------------------------------------------------------------------------------------------

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= raw * 0.999);
  const out = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) out.push(Number((k * step).toPrecision(12)));
  return out;
}
function tickText(x) {
  const a = Math.abs(x);
  if (a >= 1e6) return `${Number((x / 1e6).toPrecision(3))}M`;
  if (a >= 1e4) return `${Number((x / 1e3).toPrecision(3))}k`;
  return a !== 0 && a < 1e-3 ? x.toExponential(2).replace(/\.?0+e/, "e") : String(Number(x.toPrecision(4)));
}

// series: [{name, i, points: [{x, y, low, high, round}]}], bound: [[x, y]]
function chart(title, series, { bound = null, wide = false, xTitle = "" } = {}) {
  const broad = wide && innerWidth > 640, W = broad ? 600 : 340, H = broad ? 300 : wide ? 230 : 190, left = 46, right = 12, top = 8, bottom = xTitle ? 38 : 24;
  const xs = [], ys = [];
  for (const s of series) for (const p of s.points) { xs.push(p.x); ys.push(p.y, p.low ?? p.y, p.high ?? p.y); }
  if (bound) for (const [x, y] of bound) { xs.push(x); ys.push(y); }
  const figure = el("figure", { "data-chart": title }, el("figcaption", {}, title));
  if (!xs.length) { figure.append(el("p", { class: "empty" }, "No numbers yet.")); return figure; }
  let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
  if (y1 - y0 < 1e-9 * Math.max(1, Math.abs(y0))) { const pad = Math.abs(y0) * 0.1 || 1; y0 -= pad; y1 += pad; }
  const pad = (y1 - y0) * 0.06; y0 -= pad; y1 += pad;
  const X = x => left + (x - x0) / (x1 - x0) * (W - left - right), Y = y => H - bottom - (y - y0) / (y1 - y0) * (H - top - bottom);
  const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title });
  for (const y of ticks(y0, y1, broad ? 6 : 4)) {
    svg.append(el("line", { class: "gridline", x1: left, x2: W - right, y1: Y(y), y2: Y(y) }));
    svg.append(el("text", { x: left - 6, y: Y(y) + 4, "text-anchor": "end" }, tickText(y)));
  }
  const whole = state.axis === "round" && !bound;
  for (const x of ticks(x0, x1, 5).filter(x => !whole || Number.isInteger(x))) {
    svg.append(el("text", { x: X(x), y: H - bottom + 16, "text-anchor": "middle" }, tickText(x)));
  }
  svg.append(el("line", { class: "axis", x1: left, x2: W - right, y1: H - bottom, y2: H - bottom }));
  if (xTitle) svg.append(el("text", { x: (left + W - right) / 2, y: H - 4, "text-anchor": "middle" }, xTitle));
  const path = (points, f) => points.map((p, k) => `${k ? "L" : "M"}${X(p.x).toFixed(2)} ${f(p).toFixed(2)}`).join("");
  if (bound) {
    svg.append(el("path", { class: "bound", d: path(bound.map(([x, y]) => ({ x, y })), p => Y(p.y)) }));
  }
  for (const s of series) {
    const banded = s.points.filter(p => isNumber(p.low));
    if (!bound && banded.length > 1) {
      const back = [...banded].reverse();
      const d = path(banded, p => Y(p.high)) + path(back, p => Y(p.low)).replace("M", "L") + "Z";
      svg.append(el("path", { d, fill: colour(s.i), "fill-opacity": 0.16 }));
    } else {
      for (const p of banded) svg.append(el("line", { x1: X(p.x), x2: X(p.x), y1: Y(p.low), y2: Y(p.high), stroke: colour(s.i), "stroke-opacity": bound ? 0.35 : 1 }));
    }
  }
  for (const s of series) {
    svg.append(el("path", { d: path(s.points, p => Y(p.y)), fill: "none", stroke: colour(s.i), "stroke-width": 1.8, "stroke-dasharray": dash(s.i), "stroke-opacity": bound ? 0.55 : 1, "data-run": s.name }));
    if (bound || s.points.length < 3) for (const p of s.points) svg.append(el("circle", { cx: X(p.x), cy: Y(p.y), r: 3, fill: colour(s.i) }));
  }
  const marks = el("g"); svg.append(marks);
  const tip = el("div", { class: "tip", hidden: true });
  const hide = () => { tip.hidden = true; marks.replaceChildren(); };
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), scale = box.width / W;
    const mx = (event.clientX - box.left) / scale, my = (event.clientY - box.top) / scale;
    marks.replaceChildren();
    let lines = [];
    const distance = p => bound ? Math.hypot(X(p.x) - mx, Y(p.y) - my) : Math.abs(X(p.x) - mx);
    for (const s of series) {
      if (!s.points.length) continue;
      const p = s.points.reduce((a, b) => distance(b) < distance(a) ? b : a);
      lines.push({ s, p, d: distance(p) });
    }
    if (!lines.length) return;
    if (bound) lines = [lines.reduce((a, b) => b.d < a.d ? b : a)];
    tip.replaceChildren();
    for (const { s, p } of lines) {
      marks.append(el("circle", { cx: X(p.x), cy: Y(p.y), r: 4.5, fill: "none", stroke: colour(s.i), "stroke-width": 2 }));
      const span = isNumber(p.low) ? ` (${shown(p.low)} to ${shown(p.high)})` : "";
      const where = bound ? `round ${p.round}: KL ${shown(p.x)}, win rate ${shown(p.y)}` : `${state.axis === "round" ? "round" : "at"} ${shown(p.x)}: ${shown(p.y)}`;
      const key = el("span", { class: "key", style: `background:${colour(s.i)}` });
      tip.append(el("div", {}, key, `${data.runs.length > 1 ? s.name + ", " : ""}${where}${span}`));
    }
    if (!bound) marks.append(el("line", { class: "cross", x1: X(lines[0].p.x), x2: X(lines[0].p.x), y1: top, y2: H - bottom }));
    tip.hidden = false;
    const at = event.clientX - figure.getBoundingClientRect().left;
    tip.style.left = `${Math.max(4, Math.min(at + 12, figure.clientWidth - tip.offsetWidth - 6))}px`;
    tip.style.top = `${event.clientY - figure.getBoundingClientRect().top + 14}px`;
  });
  svg.addEventListener("pointerleave", hide);
  figure.append(svg, tip);
  return figure;
}

function points(run, name, x) {
  return run.metrics.filter(r => isNumber(r[name]) && isNumber(r[x])).map(r => {
    const error = r[name + "_error"], [low, high] = [r[name + "_low"], r[name + "_high"]];
    const band = isNumber(error) ? { low: r[name] - 1.96 * error, high: r[name] + 1.96 * error } : isNumber(low) && isNumber(high) ? { low, high } : {};
    return { x: r[x], y: r[name], round: r.round, ...band };
  });
}
function drawCharts() {
  const lines = name => visible().map(({ run, i }) => ({ name: run.name, i, points: points(run, name, state.axis) }));
  document.getElementById("curves").replaceChildren(...data.curves.map(c => chart(c.title, lines(c.name))));
  const both = visible().map(({ run, i }) => ({ name: run.name, i, points: points(run, data.pair[1], data.pair[0]) }));
  const frontier = document.getElementById("frontier");
  if (both.some(s => s.points.length)) {
    frontier.replaceChildren(chart(`Win rate against the reference${data.pair[0] === "kl" ? "" : " on held-out prompts"}, and the most that any policy has at this KL (dashed)`, both, { bound: data.frontier, wide: true, xTitle: "KL to the reference, nats" }));
  } else {
    frontier.replaceChildren(el("p", { class: "empty" }, "No win rates were measured: give --train.reference-draws 4 or so."));
  }
  if (!data.curves.length) document.getElementById("curves").replaceChildren(el("p", { class: "empty" }, "No round has ended yet."));
}

// -- runs and time --------------------------------------------------------------------------------------------

const COLUMNS = [["reward", "reward"], ["win_rate_reference", "win rate"], ["kl", "KL"], ["length", "length"], ["cut", "cut"]];
function drawRuns() {
  const last = run => run.metrics[run.metrics.length - 1] ?? {};
  const columns = COLUMNS.filter(([name]) => data.runs.some(run => isNumber(last(run)[name])));
  const rows = data.runs.map((run, i) => {
    const box = el("input", { type: "checkbox", id: `run-${i}`, checked: !hidden.has(i), onchange: e => { e.target.checked ? hidden.delete(i) : hidden.add(i); drawCharts(); } });
    const cells = columns.map(([name]) => {
      const value = last(run)[name], error = last(run)[name + "_error"];
      return el("td", { class: "n" }, isNumber(value) ? shown(Number(value.toPrecision(3))) + (isNumber(error) ? ` ± ${shown(Number((1.96 * error).toPrecision(2)))}` : "") : "");
    });
    return el("tr", {}, el("td", { class: "name" }, box, " ", el("label", { for: `run-${i}` }, el("span", { class: "key", style: `background:${colour(i)}` }), run.name)),
      ...cells, el("td", { class: "n" }, shown(last(run).seen_tokens)), el("td", { class: "n" }, isNumber(last(run).seen_seconds) ? shown(Math.round(last(run).seen_seconds)) : ""),
      );
  });
  const states = data.runs.map((run, i) => el("div", { class: "state" }, el("span", { class: "key", style: `background:${colour(i)}` }), el("b", {}, run.name), ": ", run.status + " ",
    run.remark ? el("span", { class: "remark" }, run.remark) : null, el("div", { class: "soft" }, Object.entries(run.settings).map(([k, v]) => `${k} ${shown(v)}`).join(", "))));
  const head = el("tr", {}, el("th", {}, "run"), ...columns.map(([, title]) => el("th", { class: "n" }, title)), el("th", { class: "n" }, "tokens"), el("th", { class: "n" }, "seconds"));
  document.getElementById("runs").replaceChildren(el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows))),
    el("p", { class: "note" }, `Metrics of the last round, ± 95%. Written ${data.written}.`), ...states);
}
function drawSeconds() {
  const names = [...new Set(data.runs.flatMap(run => run.metrics.flatMap(r => Object.keys(r).filter(k => k.startsWith("seconds_")))))];
  if (!names.length) { document.getElementById("seconds").replaceChildren(el("p", { class: "empty" }, "No round has ended yet.")); return; }
  const rows = data.runs.map(run => {
    const sums = names.map(n => run.metrics.reduce((a, r) => a + (r[n] ?? 0), 0)), total = sums.reduce((a, b) => a + b, 0) || 1, rounds = run.metrics.length || 1;
    const parts = sums.map((s, k) => el("div", { style: `flex:${s / total};background:${colour(k)}`, title: `${names[k].slice(8)} ${shown(s / rounds)} s a round` }));
    return el("tr", {}, el("td", { class: "name" }, run.name), ...sums.map(s => el("td", { class: "n" }, shown(Number((s / rounds).toPrecision(3))))), el("td", { style: "width:45%" }, el("div", { class: "stack" }, ...parts)));
  });
  const head = el("tr", {}, el("th", {}, "seconds per round"), ...names.map((n, k) => el("th", { class: "n" }, el("span", { class: "key", style: `background:${colour(k)}` }), n.slice(8))), el("th", {}, "share"));
  document.getElementById("seconds").replaceChildren(el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows))));
}

// -- responses ------------------------------------------------------------------------------------------------

const SORTS = { reward: r => -(r.reward ?? r.label ?? 0), worst: r => r.reward ?? r.label ?? 0, length: r => -r.tokens, drift: r => -(r.log_ratio ?? 0) };
function cards(title, list) {
  const ordered = [...list].sort((a, b) => SORTS[state.sort](a) - SORTS[state.sort](b));
  return el("div", {}, el("h3", {}, title), ...ordered.map(r => {
    const facts = [["reward", r.reward], ["label", r.label], ["log π/ρ", r.log_ratio], ["tokens", r.tokens]].filter(([, v]) => isNumber(v));
    return el("div", { class: "response" }, el("div", { class: "facts" }, ...facts.map(([k, v]) => el("span", {}, `${k} `, el("b", {}, shown(Number(v.toPrecision(4)))))), r.ended ? el("span", {}, r.ended) : null),
      r.text ? el("div", { class: "text" }, r.text) : el("div", { class: "empty" }, "(empty)"));
  }));
}
function choice(id, label, options, value, change) {
  const select = el("select", { id, onchange: e => change(e.target.value) }, ...options.map(([v, text]) => el("option", { value: v, selected: String(v) === String(value) }, text)));
  return el("label", id === "prompt" ? { style: "display:contents" } : {}, label ? label + " " : "", select);
}
const mean = list => list.length ? list.reduce((a, b) => a + b, 0) / list.length : null;
const rewardOf = list => mean((list ?? []).map(r => r.reward ?? r.label).filter(isNumber));
function drawResponses() {
  const place = document.getElementById("responses"), having = data.runs.map((run, i) => [i, run]).filter(([, run]) => run.rollouts.length);
  if (!having.length) { place.replaceChildren(el("p", { class: "empty" }, "No responses are kept: give --train.completions 4 or so.")); return; }
  if (!having.some(([i]) => i === state.run)) state.run = having[0][0];
  const rounds = data.runs[state.run].rollouts;
  if (!rounds.some(r => r.round === state.round)) state.round = rounds[rounds.length - 1].round;
  const at = rounds.findIndex(r => r.round === state.round), round = rounds[at];
  const found = round.prompts.map((p, k) => [k, p]).filter(([, p]) => p.prompt.toLowerCase().includes(state.find.toLowerCase()));
  if (found.length && !found.some(([k]) => k === state.prompt)) state.prompt = found[0][0];
  const prompt = round.prompts[state.prompt] ?? round.prompts[0];
  const go = (change) => { Object.assign(state, change); drawResponses(); remember(); };
  const keep = (step) => { // the same prompt in another round, if it is there
    const next = rounds[at + step], same = next.prompts.findIndex(p => p.index === prompt.index);
    go({ round: next.round, prompt: same < 0 ? 0 : same });
  };
  const short = p => { const text = p.prompt.replace(/\s+/g, " "); const r = rewardOf(p.responses); return (r === null ? "" : `${shown(Number(r.toPrecision(3)))}  `) + (text.length > 80 ? text.slice(0, 80) + " …" : text); };
  const search = el("input", { id: "find", type: "search", placeholder: "find in prompts", "aria-label": "find in prompts", value: state.find });
  search.addEventListener("input", () => { state.find = search.value; drawResponses(); const again = document.getElementById("find"); again.focus(); again.setSelectionRange(again.value.length, again.value.length); });
  const bar = el("div", { class: "bar" },
    having.length > 1 ? choice("run", "run", having.map(([i, run]) => [i, run.name]), state.run, v => go({ run: Number(v) })) : null,
    el("span", {}, el("button", { id: "earlier", disabled: at === 0, "aria-label": "earlier round", onclick: () => keep(-1) }, "‹"), " ",
      choice("round", "round", rounds.map(r => [r.round, r.round]), state.round, v => keep(rounds.findIndex(r => String(r.round) === v) - at)), " ",
      el("button", { id: "later", disabled: at === rounds.length - 1, "aria-label": "later round", onclick: () => keep(1) }, "›")),
    choice("sort", "first", [["reward", "best"], ["worst", "worst"], ["length", "longest"], ["drift", "likelier than under the reference"]], state.sort, v => go({ sort: v })),
    search, choice("prompt", "", found.map(([k, p]) => [k, short(p)]), state.prompt, v => go({ prompt: Number(v) })));
  const parts = [bar];
  if (!found.length) parts.push(el("p", { class: "empty" }, "No prompt of this round contains that."));
  else {
    const means = [rewardOf(prompt.responses), rewardOf(prompt.reference)].map(m => m === null ? "" : `, mean ${prompt.responses.some(r => isNumber(r.reward)) ? "reward" : "label"} ${shown(Number(m.toPrecision(3)))}`);
    const right = prompt.reference ? cards(`The reference${means[1]}`, prompt.reference) : el("div", {}, el("h3", {}, "The reference"), el("p", { class: "empty" }, "Its responses are kept with --train.reference-draws, for the prompts of --train.completions."));
    parts.push(el("div", { class: "prompt" }, prompt.prompt), el("div", { class: "beside" }, cards(`The model in round ${round.round}${means[0]}`, prompt.responses), right));
  }
  if (round.of > round.prompts.length) parts.push(el("p", { class: "note" }, `${round.prompts.length} of the round's ${round.of} prompts are in this report.`));
  place.replaceChildren(...parts);
}

// -- state in the address, so that a link opens the same view --------------------------------------------------

function remember() {
  const keys = { axis: state.axis, run: state.run, round: state.round, prompt: state.prompt, sort: state.sort };
  try { history.replaceState(null, "", "#" + new URLSearchParams(keys)); } catch { /* not allowed in some viewers */ }
}
function recall() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const key of ["run", "round", "prompt"]) if (given.has(key)) state[key] = Number(given.get(key));
  if (given.get("sort") in SORTS) state.sort = given.get("sort");
  if (["round", "seen_tokens", "seen_seconds"].includes(given.get("axis"))) state.axis = given.get("axis");
  if (given.has("theme")) document.documentElement.dataset.theme = given.get("theme");
}
recall();
document.title = `windlm report: ${data.runs.map(r => r.name).join(", ")}`;
const theme = document.getElementById("theme"), axis = document.getElementById("axis");
theme.value = document.documentElement.dataset.theme ?? "";
theme.addEventListener("change", () => { document.documentElement.dataset.theme = theme.value; });
axis.value = state.axis;
axis.addEventListener("change", () => { state.axis = axis.value; drawCharts(); remember(); });
let narrow = innerWidth <= 640;
addEventListener("resize", () => { if (narrow !== (narrow = innerWidth <= 640)) drawCharts(); });
drawRuns(); drawCharts(); drawSeconds(); drawResponses();
