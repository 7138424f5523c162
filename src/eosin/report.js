"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const DASH = "–";

  // Every word goes in as text: nothing of the data is ever read as HTML.
  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    fill(node, attributes);
    for (const child of children.flat(Infinity)) if (child !== null && child !== undefined && child !== "") node.append(child);
    return node;
  }
  function draw(tag, attributes) {
    return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes);
  }
  function fill(node, attributes) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
    }
    return node;
  }
  const number = (v) => (v === null || v === undefined ? DASH : v.toFixed(3));
  const big = (v) => {
    if (!v) return DASH;
    for (const [size, letter] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) if (v >= size) return (v / size).toPrecision(3) + letter;
    return String(v);
  };
  const text = (i) => data.texts[i];

  // --- a table that sorts: columns are {title, small, value(row), cell(row), down}
  function table(node, columns, rows, sorted, extra) {
    const state = { column: sorted, down: !!(columns[sorted] || {}).down };
    const body = el("tbody");
    const heads = columns.map((c, i) => {
      if (!c.value) return el("th", { scope: "col" }, c.title, c.small ? el("small", {}, c.small) : null);
      const button = el("button", { type: "button", onclick: () => sort(i), title: "Sort by " + c.title }, c.title, c.small ? el("small", {}, c.small) : null);
      return el("th", { scope: "col" }, button);
    });
    function sort(i) {
      state.down = state.column === i ? !state.down : !!columns[i].down;
      state.column = i;
      show();
    }
    function show() {
      const { column, down } = state;
      heads.forEach((head, i) => {
        if (i === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
      const value = columns[column] ? columns[column].value : () => 0;
      const empty = (v) => v === null || v === undefined || v === "";
      const ordered = [...rows].sort((a, b) => {
        const [u, v] = [value(a), value(b)];
        if (empty(u) || empty(v)) return empty(u) - empty(v);
        const order = typeof u === "string" ? u.localeCompare(v, undefined, { numeric: true }) : u - v;
        return down ? -order : order;
      });
      body.replaceChildren(...ordered.flatMap((row) => {
        const line = el("tr", {}, columns.map((c) => c.cell(row)));
        return extra ? extra(row, line) : [line];
      }));
    }
    node.replaceChildren(el("thead", {}, el("tr", {}, heads)), body);
    show();
  }

  // --- cells
  const cells = data.cells.map(([model, column, scores, [seen, notes, how, facts, environment]]) => ({
    model, column, seen, notes, facts, environment,
    scores: Object.fromEntries(scores.map(([metric, ...numbers]) => [data.metrics[metric], numbers])),
    how: Object.fromEntries(scores.map(([metric], i) => [data.metrics[metric], how[i]])),
  }));
  const measured = (cell) => data.models[cell.model].source === "measured";
  const at = new Map(cells.map((c) => [c.model + " " + c.column, c]));
  const score = (cell, metric) => (cell && cell.scores[metric] ? cell.scores[metric][0] : null);
  const noted = (cell) => cell.notes.length > 0;
  const better = (column) => (data.columns[column].better === "lower" ? -1 : 1);

  function label(m) {
    const model = data.models[m];
    return model.source === "measured" ? [model.label] : [model.name, el("small", { class: "source" }, " " + model.source)];
  }
  function values(mean, std) {
    return [number(mean), std === null || std === undefined ? null : el("small", {}, " ±" + std.toFixed(3))];
  }

  // --- the leaderboard
  function board() {
    const wanted = (input) => $(input).value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (name, words) => !words.length || words.some((w) => name.toLowerCase().includes(w));
    const [models, benchmarks] = [wanted("f-model"), wanted("f-benchmark")];
    const [suite, source] = [data.suites[$("f-suite").value], $("f-source").value];
    const open = data.columns.map((_, i) => i).filter((i) => {
      const c = data.columns[i];
      return (!suite || suite.includes(c.benchmark)) && fits([c.benchmark, c.protocol, c.folds, c.metric].join(" "), benchmarks);
    });
    let rows = data.models.map((_, m) => m).filter((m) => {
      const printed = data.models[m].source !== "measured";
      return fits(data.models[m].label, models) && (source === "both" || printed === (source === "published"));
    });
    const cell = (m, i) => at.get(m + " " + i);
    const primary = (m, i) => score(cell(m, i), data.columns[i].metric);
    const counts = new Map(rows.map((m) => [m, open.filter((i) => primary(m, i) !== null).length]));
    rows = rows.filter((m) => counts.get(m) > 0);
    const columns = open.filter((i) => rows.some((m) => primary(m, i) !== null));
    if ($("f-complete").checked) rows = rows.filter((m) => counts.get(m) === columns.length);
    const whole = rows.filter((m) => counts.get(m) === columns.length);
    const alike = new Set(columns.map((i) => data.columns[i].metric)).size === 1;

    const [means, ranks, best, second] = [new Map(), new Map(), new Map(), new Map()];
    const shared = (i) => rows.filter((m) => primary(m, i) !== null).length > 1;
    for (const m of whole) ranks.set(m, 0);
    for (const i of columns) {
      const sorted = [...new Set(rows.map((m) => primary(m, i)).filter((v) => v !== null))].sort((a, b) => better(i) * (b - a));
      best.set(i, sorted[0]);
      second.set(i, sorted[1]);
      const sums = whole.map((m) => primary(m, i));
      for (const m of whole) {
        const v = primary(m, i);
        const above = sums.filter((u) => better(i) * (u - v) > 0).length;
        const same = sums.filter((u) => u === v).length;
        ranks.set(m, ranks.get(m) + (above + (same + 1) / 2) / columns.length);
      }
    }
    if (alike) for (const m of whole) means.set(m, columns.reduce((sum, i) => sum + primary(m, i), 0) / columns.length);

    const spec = [{ title: "Model", value: (m) => data.models[m].label, cell: (m) => el("th", { scope: "row" }, label(m)) }];
    if (whole.length < rows.length) spec.push({ title: "Columns", small: "of " + columns.length, down: true, value: (m) => counts.get(m), cell: (m) => el("td", {}, String(counts.get(m))) });
    if (columns.length > 1 && whole.length) {
      spec.push({ title: "Mean rank", value: (m) => ranks.get(m), cell: (m) => el("td", { class: ranks.has(m) ? null : "none", title: ranks.has(m) ? null : `has ${counts.get(m)} of ${columns.length} columns` }, ranks.has(m) ? ranks.get(m).toFixed(2) : DASH) });
      if (alike) spec.push({ title: "Mean", small: data.columns[columns[0]].metric, down: true, value: (m) => means.get(m), cell: (m) => el("td", { class: means.has(m) ? null : "none" }, number(means.get(m))) });
    }
    for (const i of columns) {
      const c = data.columns[i];
      spec.push({ title: c.title, small: c.metric, down: better(i) > 0, value: (m) => primary(m, i), cell: (m) => {
        const found = cell(m, i), v = primary(m, i);
        if (v === null) return el("td", { class: "none" }, DASH);
        const [, std, low, high] = found.scores[c.metric];
        const mark = v === best.get(i) && shared(i) ? "best" : v === second.get(i) ? "second" : null;
        const tip = low === null ? null : `95 % interval ${number(low)} to ${number(high)}`;
        return el("td", { title: tip }, el("span", { class: mark }, number(v)), values(null, std)[1], found.seen ? el("sup", { title: "the model was trained on data of this source" }, "‡") : null, noted(found) ? el("sup", {}, "†") : null);
      } });
    }
    const first = columns.length > 1 && whole.length ? spec.findIndex((c) => c.title === "Mean rank") : 1;
    table($("board"), spec, rows, first);
    $("state").textContent = `${rows.length} of ${data.models.length} models, ${columns.length} of ${data.columns.length} columns` + (rows.length && whole.length < rows.length ? `; ${whole.length || "none"} of them with every column` + (whole.length ? "" : ", so no mean rank") : "");
  }

  // --- one benchmark
  function strip(scores, low, high) {
    const x = (v) => (6 + (178 * (v - low)) / (high - low || 1)).toFixed(1);
    const svg = draw("svg", { class: "strip", viewBox: "0 0 190 18", "aria-hidden": "true" });
    const [mean, , from, to, folds] = scores;
    if (from !== null && to !== null) svg.append(draw("line", { x1: x(from), x2: x(to), y1: 9, y2: 9, stroke: "var(--soft)", "stroke-width": 2 }));
    for (const v of folds) if (v !== null) svg.append(draw("circle", { cx: x(v), cy: 9, r: 3, fill: "var(--c0)", "fill-opacity": 0.45 }));
    if (mean !== null) svg.append(draw("line", { x1: x(mean), x2: x(mean), y1: 1, y2: 17, stroke: "var(--c1)", "stroke-width": 2.5 }));
    return svg;
  }

  function facts(pairs) {
    return el("dl", {}, pairs.filter(([, v]) => v !== null && v !== undefined && v !== "").flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
  }

  function column(i, node) {
    const c = data.columns[i];
    const own = cells.filter((cell) => cell.column === i);
    const metrics = [...new Set(own.flatMap((cell) => Object.keys(cell.scores)))];
    const inside = el("table");
    const choose = el("select", { onchange: () => show(choose.value) }, metrics.map((m) => el("option", { value: m, selected: m === c.metric ? "" : null }, m)));
    function show(metric) {
      const rows = own.filter((cell) => cell.scores[metric]);
      const ends = rows.flatMap((r) => { const [mean, , low, high, folds] = r.scores[metric]; return [mean, low, high, ...folds]; }).filter((v) => v !== null);
      const [low, high] = [Math.min(...ends), Math.max(...ends)];
      table(inside, [
        { title: "Model", value: (r) => data.models[r.model].label, cell: (r) => el("th", { scope: "row" }, label(r.model)) },
        { title: metric, down: better(i) > 0, value: (r) => score(r, metric), cell: (r) => el("td", {}, values(...r.scores[metric])) },
        { title: "95 % interval", value: (r) => r.scores[metric][2], cell: (r) => el("td", {}, r.scores[metric][2] === null ? DASH : `${number(r.scores[metric][2])} to ${number(r.scores[metric][3])}`) },
        { title: "Folds, interval, mean", cell: (r) => el("td", {}, strip(r.scores[metric], low, high)) },
        { title: "Values", value: (r) => r.scores[metric][5], down: true, cell: (r) => el("td", {}, r.scores[metric][5] || DASH) },
        { title: "More", cell: () => el("td", {}) },
      ], rows, 1, (r, line) => {
        const more = el("tr", { class: "more", hidden: "" });
        const button = el("button", { type: "button", class: "plain", "aria-expanded": "false", onclick: () => {
          if (!more.firstChild) more.append(el("td", { colspan: 6 }, el("div", { class: "wrap" }, origin(r, metric))));
          more.hidden = !more.hidden;
          button.setAttribute("aria-expanded", String(!more.hidden));
        } }, (measured(r) ? "repeat" : "source") + (noted(r) ? ", notes †" : "") + (r.seen ? "‡" : ""));
        line.lastChild.append(button);
        return [line, more];
      });
    }
    const chosen = el("label", {}, "Metric ", choose);
    node.append(el("div", { class: "inside" },
      facts(c.facts.map(([k, t]) => [k, t])),
      metrics.length > 1 ? el("form", { onsubmit: (e) => e.preventDefault() }, chosen) : null,
      el("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": c.title }, inside)));
    show(c.metric in (own[0] || { scores: {} }).scores ? c.metric : metrics[0]);
  }

  function origin(cell, metric) {
    const model = data.models[cell.model], c = data.columns[cell.column], how = cell.how[metric];
    const folds = cell.scores[metric][4];
    return [
      cell.notes.map((t) => el("p", { class: "note" }, text(t))),
      facts([
        ["repeat it", measured(cell) ? el("code", {}, model.command + c.command) : null],
        ["interval", how === undefined || how === null ? null : text(how)],
        ["values", folds.length ? folds.map(number).join("  ") : null],
        ...cell.facts.map((t, i) => [data.facts[i].replace("_", " "), t === null ? null : text(t)]),
        ["record", measured(cell) ? `${model.name}@${model.fingerprint}/${c.benchmark}@${c.fingerprint}.json` : null],
        ["environment", cell.environment === null ? null : "no. " + (cell.environment + 1)],
      ]),
    ];
  }

  // --- everything
  function start() {
    for (const name of ["all", ...Object.keys(data.suites)]) $("f-suite").append(el("option", { value: name === "all" ? "" : name }, name));
    $("l-suite").hidden = !Object.keys(data.suites).length;
    const printed = data.models.some((m) => m.source !== "measured"), measured = data.models.some((m) => m.source === "measured");
    for (const [value, word] of [["both", "measured and published"], ["measured", "measured"], ["published", "published"]]) $("f-source").append(el("option", { value }, word));
    $("l-source").hidden = !(printed && measured);
    let waiting = 0;
    $("filters").addEventListener("submit", (e) => e.preventDefault());
    $("filters").addEventListener("input", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(board); });
    board();

    data.columns.forEach((c, i) => {
      const node = el("details", { id: "column-" + i }, el("summary", {}, el("b", {}, c.title), el("span", { class: "soft small" }, `${c.protocol}, ${c.metric}, ${c.models} ${c.models === 1 ? "model" : "models"}`)));
      node.addEventListener("toggle", () => { if (node.open && node.children.length === 1) column(i, node); });
      $("columns").append(node);
    });

    table($("cards"), [
      { title: "Model", value: (m) => m.label, cell: (m) => el("th", { scope: "row" }, label(data.models.indexOf(m))) },
      { title: "Parameters", down: true, value: (m) => m.params, cell: (m) => el("td", {}, big(m.params)) },
      { title: "GFLOPs a tile", down: true, value: (m) => m.gflops, cell: (m) => el("td", {}, m.gflops === null ? DASH : String(m.gflops)) },
      { title: "Tiles a second", small: "as measured", down: true, value: (m) => (m.rates.length ? m.rates[0][1] : null), cell: (m) => el("td", {}, m.rates.length ? m.rates.map(([device, rate]) => el("div", {}, (rate < 100 ? rate.toPrecision(3) : Math.round(rate)) + " ", el("small", {}, device))) : DASH) },
      { title: "Peak memory", small: "MB", down: true, value: (m) => m.memory, cell: (m) => el("td", {}, m.memory === null ? DASH : String(Math.round(m.memory))) },
      { title: "Licence", value: (m) => m.licence, cell: (m) => el("td", { class: "words" }, m.licence || DASH) },
      { title: "Has seen", cell: (m) => el("td", { class: "words" }, m.seen || DASH) },
      { title: "Source", value: (m) => m.source, cell: (m) => el("td", {}, m.source, m.fingerprint ? el("small", {}, " " + m.fingerprint) : null) },
    ], data.models.filter((m, i) => m.source === "measured" || i === data.models.findIndex((other) => other.name === m.name)), 0);

    data.environments.forEach((pairs, i) => $("environments").append(el("details", {}, el("summary", {}, `No. ${i + 1}`, el("span", { class: "soft small" }, pairs.summary)), el("div", { class: "inside" }, facts(pairs.facts)))));
    if (location.hash.startsWith("#column-")) { const node = $(location.hash.slice(1)); if (node) node.open = true; }
  }
  start();
})();
