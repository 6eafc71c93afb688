// What a page gains with JavaScript: charts, a live view, previews, copy buttons, a theme. Everything else works without.
"use strict";

const LIVE_S = 2;
const drawn = new Map(); // chart id -> { text, result }

function mode() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

/* Theme */

function switchTheme() {
  const next = mode() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("tidegate.theme", next);
  drawCharts(true);
}

/* Charts */

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("role", "status");
document.body.append(tip);

function showTip(_handler, event, _item, value) {
  tip.hidden = value === null || value === undefined || value === "";
  if (tip.hidden) return;
  const { "": title, ...rows } = value;
  const header = document.createElement("header");
  header.textContent = title;
  const list = document.createElement("dl");
  for (const [name, text] of Object.entries(rows)) {
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    term.textContent = name;
    detail.textContent = text;
    list.append(term, detail);
  }
  tip.replaceChildren(header, list);
  const box = tip.getBoundingClientRect();
  const left = event.clientX + 16 + box.width > innerWidth ? event.clientX - box.width - 16 : event.clientX + 16;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, Math.min(event.clientY + 14, innerHeight - box.height - 8))}px`;
}

function isoOf(wall, spec) {
  return new Date(wall - spec.usermeta.offset_ms).toISOString().slice(0, 19) + "Z";
}

async function drawChart(figure, force) {
  const source = figure.querySelector(".spec").textContent;
  const before = drawn.get(figure.id);
  if (before && before.text === source && before.figure === figure && !force) return;
  drawn.set(figure.id, { ...before, text: source, figure });
  const spec = JSON.parse(source);
  if (!spec.usermeta && figure.clientWidth < 520) {
    // There is no room for labels: the table below the chart says the same.
    spec.layer = spec.layer.filter((layer) => !layer.mark.style?.endsWith("-label"));
  }
  const themes = JSON.parse(document.getElementById("chart-themes").textContent);
  const plot = document.createElement("div");
  plot.className = "plot next";
  figure.append(plot);
  try {
    const result = await vegaEmbed(plot, spec, {
      mode: "vega-lite",
      renderer: "canvas",
      ast: true, // the CSP forbids eval: expressions are interpreted
      actions: false,
      defaultStyle: false,
      tooltip: showTip,
      config: themes[mode()],
    });
    if (before?.figure === figure) before.result?.finalize();
    figure.querySelector(".plot:not(.next)")?.remove();
    figure.querySelector(".problem")?.remove();
    plot.className = "plot";
    drawn.set(figure.id, { text: source, result, figure });
    figure.dataset.drawn = "true";
    followPointer(figure, result.view, spec);
  } catch (error) {
    plot.remove();
    const problem = document.createElement("p");
    problem.className = "problem";
    problem.textContent = `This chart could not be drawn: ${error.message}`;
    figure.append(problem);
  }
}

function followPointer(figure, view, spec) {
  // A drag narrows the page to that span of time, a click shows the calls of one bucket.
  let dragged = null;
  if (!spec.usermeta) {
    view.addEventListener("click", (_event, item) => {
      if (item?.datum?.run) location.assign(`/runs/${encodeURIComponent(item.datum.run)}`);
    });
    return;
  }
  view.addSignalListener("zoom", (_name, value) => {
    dragged = value?.t ?? null;
  });
  figure.onpointerup = () => {
    if (!dragged) return;
    const [from, to] = dragged;
    if (to - from < spec.usermeta.step_ms) return;
    const url = new URL(location.href);
    url.searchParams.delete("window");
    url.searchParams.set("from", isoOf(from, spec));
    url.searchParams.set("to", isoOf(to, spec));
    location.assign(url);
  };
  view.addEventListener("click", (_event, item) => {
    const bucket = item?.datum;
    if (!bucket?.from || dragged) return;
    const url = new URL("/calls", location.href);
    url.searchParams.set("from", bucket.from);
    url.searchParams.set("to", bucket.to);
    const prompt = new URL(location.href).searchParams.get("prompt");
    if (prompt) url.searchParams.set("prompt", prompt);
    location.assign(url);
  });
}

function drawCharts(force = false) {
  if (typeof vegaEmbed !== "function") return;
  for (const figure of document.querySelectorAll("[data-chart]")) drawChart(figure, force);
}

/* Live view: the same address again, and only what changed in its place. */

let timer = null;

async function refresh() {
  if (!document.hidden) await lookAgain();
  if (timer) timer = setTimeout(refresh, LIVE_S * 1000);
}

async function lookAgain() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
  if (answer?.redirected) return location.assign(answer.url); // the session is over
  document.querySelector("[data-live-toggle]")?.toggleAttribute("data-lost", !answer?.ok);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const shape = (page) => [...page.querySelectorAll("[data-live]")].map((part) => part.id).join();
  if (shape(fresh) !== shape(document)) {
    document.getElementById("main").replaceChildren(...fresh.getElementById("main").childNodes);
    showLive();
  }
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    if (!next) continue;
    const charts = [...part.querySelectorAll("[data-chart]")];
    if (charts.length && charts.every((figure) => fresh.getElementById(figure.id))) {
      for (const figure of charts) {
        figure.querySelector(".spec").textContent = fresh.getElementById(figure.id).querySelector(".spec").textContent;
        const legend = figure.closest(".card").querySelector(".legend");
        legend?.replaceWith(fresh.getElementById(figure.id).closest(".card").querySelector(".legend"));
      }
    } else if (part.innerHTML !== next.innerHTML) {
      part.replaceChildren(...next.childNodes);
    }
  }
  drawCharts();
  loadPreviews();
}

function showLive() {
  document.querySelector("[data-live-toggle]")?.setAttribute("aria-pressed", String(timer !== null));
  if (timer === null) document.querySelector("[data-live-toggle]")?.removeAttribute("data-lost");
}

function setLive(on) {
  if (!document.querySelector("[data-live-toggle]")) return;
  localStorage.setItem("tidegate.live", on ? "on" : "off");
  clearTimeout(timer);
  timer = on ? setTimeout(refresh, LIVE_S * 1000) : null;
  showLive();
}

/* Previews: the answers of the rows in sight, 200 characters each, after the list is there. */

const previews = new Map();

async function loadPreviews() {
  const cells = [...document.querySelectorAll("[data-preview]")];
  const wanted = cells.map((cell) => cell.dataset.preview).filter((id) => !previews.has(id));
  const oldest = document.getElementById("oldest")?.dataset.from;
  if (wanted.length && oldest) {
    const query = new URLSearchParams([["from", oldest], ...wanted.map((id) => ["id", id])]);
    const answer = await fetch(`/calls/previews.json?${query}`).catch(() => null);
    if (answer?.ok) {
      const found = (await answer.json()).previews;
      for (const id of wanted) previews.set(id, found[id] ?? "");
    }
  }
  for (const cell of cells) {
    const text = previews.get(cell.dataset.preview);
    if (text) cell.textContent = text;
  }
}

/* One listener for the whole page. */

document.addEventListener("click", async (event) => {
  const target = event.target.closest("[data-copy], [data-theme-toggle], [data-live-toggle], [data-dismiss]");
  if (!target) return;
  if (target.matches("[data-theme-toggle]")) switchTheme();
  if (target.matches("[data-live-toggle]")) setLive(target.getAttribute("aria-pressed") !== "true");
  if (target.matches("[data-dismiss]")) target.closest(".notice").remove();
  if (target.matches("[data-copy]")) {
    await navigator.clipboard.writeText(document.getElementById(target.dataset.copy)?.textContent ?? target.dataset.text);
    target.dataset.copied = "true";
    setTimeout(() => delete target.dataset.copied, 1200);
  }
});

document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-auto]");
  if (form && event.target.matches("select")) form.requestSubmit();
});

document.addEventListener("submit", (event) => {
  // Empty filters stay out of the address.
  if (event.target.method !== "get") return;
  for (const field of event.target.elements) field.disabled = field.name && field.value === (field.dataset.default ?? "");
});

addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form[method=get] :disabled")) field.disabled = false;
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawCharts(true));
setLive(localStorage.getItem("tidegate.live") !== "off");
drawCharts();
loadPreviews();
