"use strict";

const byId = (id) => document.getElementById(id);
const state = { info: null, history: [], users: [], user: null, next: null, drawn: false, temperatures: [], seed: 1, prefix: [], asked: 0 };

/** An element with properties, classes among them, and children; texts are never taken for markup. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; is it still there?");
  }
  const value = await response.json().catch(() => null);
  if (!response.ok) throw new Error(value?.error?.message ?? `status ${response.status}`);
  return value;
}

function complain(error) {
  byId("error").textContent = error.message;
  byId("error").hidden = false;
}

/** Runs what a person asked for, and says what went wrong. */
async function attempt(work) {
  try {
    byId("error").hidden = true;
    return await work();
  } catch (error) {
    complain(error);
    return undefined;
  }
}

const number = new Intl.NumberFormat("en-GB");
const hue = (code) => (code * 137.5) % 360;

/** Codes as chips; a click opens the tree there. */
function sidChips(sid) {
  const chips = sid.map((code, level) => {
    const chip = make("button", { type: "button", className: "code", textContent: code, title: `what else begins with ${sid.slice(0, level + 1).join(", ")}` });
    chip.style.setProperty("--hue", hue(sid[0] * 7 + (level > 0 ? sid[1] ?? 0 : 0)));
    chip.addEventListener("click", () => openTree(sid.slice(0, level + 1)));
    return chip;
  });
  return make("span", { className: "sid" }, ...chips);
}

const titleOf = (item) => item.title ?? `(item ${item.id})`;

// History

function showHistory() {
  const rows = state.history.map((item, place) => {
    const remove = make("button", { type: "button", className: "remove", textContent: "×", title: "take it out", ariaLabel: `take out ${titleOf(item)}` });
    remove.addEventListener("click", () => { state.history.splice(place, 1); changed(); });
    const below = make("div", { className: "below" }, sidChips(item.sid), item.category ?? "");
    return make("li", {}, make("span", { className: "rank", textContent: place + 1 }), make("div", {}, make("div", { className: "title", textContent: titleOf(item), title: titleOf(item) }), below), remove);
  });
  byId("history").replaceChildren(...rows);
  byId("history").scrollTop = byId("history").scrollHeight;
  byId("history-empty").hidden = rows.length > 0;
}

/** What the address says, `#item=3&item=14&drawn` or `#user=7`: where to begin, that can be kept or sent on. */
async function fromAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const user = state.users.findIndex((user) => user.user === said.get("user"));
  if (user >= 0) {
    byId("user").value = user;
    beginWith(state.users[user]);
  }
  for (const id of said.getAll("item")) {
    const { items: [item] } = await call(`/items?limit=1&q=${encodeURIComponent(id)}`);
    if (item?.id === id) state.history.push(item);
  }
  showHistory();
  if (said.has("drawn")) chooseSearch(true);
  else await recommend();
}

function toAddress() {
  // An id may hold any character, a comma too.
  const whose = state.user === null ? state.history.map((item) => ["item", item.id]) : [["user", state.user]];
  window.history.replaceState(null, "", state.history.length ? `#${new URLSearchParams(whose)}${state.drawn ? "&drawn" : ""}` : location.pathname);
}

/** The history is another: whose it was and what came next no longer holds. */
function changed() {
  state.user = null;
  state.next = null;
  byId("user").value = "";
  showHistory();
  recommend();
}

async function search() {
  const query = byId("query").value.trim();
  if (!query) { byId("found").hidden = true; return; }
  await attempt(async () => {
    const { items } = await call(`/items?limit=12&q=${encodeURIComponent(query)}`);
    if (query !== byId("query").value.trim()) return;
    const rows = items.map((item) => {
      const choose = make("button", { type: "button" }, titleOf(item), make("div", { className: "quiet", textContent: item.category ?? "" }));
      choose.addEventListener("click", () => { state.history.push(item); byId("query").value = ""; byId("found").hidden = true; changed(); });
      return make("li", {}, choose);
    });
    byId("found").replaceChildren(...(rows.length ? rows : [make("li", { className: "quiet none", textContent: "no title has all these words" })]));
    byId("found").hidden = false;
  });
}

async function surprise() {
  await attempt(async () => {
    let prefix = [];
    while (prefix.length < state.info.positions.length) {
      const { children } = await call(`/tree?prefix=${prefix.join(",")}`);
      const child = children[Math.floor(Math.random() * children.length)];
      prefix = [...prefix, child.code];
      if (prefix.length === state.info.positions.length) state.history = child.examples.slice(0, 1);
    }
    changed();
  });
}

// Recommendations

async function recommend() {
  const asked = ++state.asked;
  const empty = state.history.length === 0;
  byId("list-empty").hidden = !empty;
  toAddress();
  if (empty) { byId("list").replaceChildren(); byId("took").textContent = ""; return; }
  const body = { history: state.history.slice(-state.info.max_items).map((item) => item.id), k: Math.min(Math.max(Number(byId("k").value) || 10, 1), state.info.max_k), own_items: byId("own").checked };
  if (state.user !== null) body.user = state.user;
  if (byId("category").value) body.categories = [byId("category").value];
  if (state.drawn) Object.assign(body, { temperature: state.temperatures, seed: state.seed });
  await attempt(async () => {
    const start = performance.now();
    const { recommendations: [list] } = await call("/recommend", body);
    if (asked !== state.asked) return;
    showList(list);
    byId("took").textContent = `${list.length} items in ${Math.round(performance.now() - start)} ms`;
  });
}

function showList(list) {
  const scores = list.map(({ score }) => score);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  const own = new Set(state.history.map((item) => item.id));
  const rows = list.map(({ item, score }, place) => {
    const hit = state.next !== null && item.id === state.next.id;
    const bar = make("b");
    bar.style.width = `${high > low ? 8 + (92 * (score - low)) / (high - low) : 100}%`;
    const below = make("div", { className: "below" }, sidChips(item.sid), item.category ?? "",
      hit ? make("span", { className: "badge", textContent: "what the user took next" }) : null, own.has(item.id) ? make("span", { textContent: "in the history" }) : null);
    const what = make("div", {}, make("div", { className: "title", textContent: titleOf(item) }), below);
    const figure = make("div", { className: "score", title: state.drawn || !state.info.second_ranking ? "log-probability" : "log-probability, with what came near it in training" }, score.toFixed(2), make("i", {}, bar));
    return make("li", { className: hit ? "hit" : "" }, make("span", { className: "rank", textContent: place + 1 }), what, figure);
  });
  byId("list").replaceChildren(...rows);
  byId("list-empty").textContent = "Nothing is left: the category or the history leaves no other item.";
  byId("list-empty").hidden = rows.length > 0;
}

function chooseSearch(drawn) {
  state.drawn = drawn;
  byId("draw").ariaPressed = String(drawn);
  byId("best").ariaPressed = String(!drawn);
  byId("temperatures").hidden = !drawn;
  recommend();
}

function makeSliders() {
  state.temperatures = state.info.positions.map(() => 1);
  const sliders = state.info.positions.map((size, level) => {
    const last = level >= state.info.levels;
    const slider = make("input", { type: "range", min: 0, max: 3, step: 0.1, value: 1 });
    const shown = make("output", { textContent: "1.0" });
    slider.addEventListener("input", () => { state.temperatures[level] = Number(slider.value); shown.textContent = Number(slider.value).toFixed(1); });
    slider.addEventListener("change", recommend);
    return make("label", {}, last ? "number" : `code ${level + 1} of ${state.info.levels}`, slider, shown);
  });
  byId("sliders").replaceChildren(...sliders);
}

// Tree

const SHOWN = 40;

async function openTree(prefix, all = false) {
  await attempt(async () => {
    const { children } = await call(`/tree?prefix=${prefix.join(",")}`);
    state.prefix = prefix;
    const leaf = prefix.length + 1 === state.info.positions.length;
    const total = children.reduce((sum, child) => sum + child.items, 0);
    const most = Math.max(...children.map((child) => child.items), 1);
    if (!leaf) children.sort((a, b) => b.items - a.items || a.code - b.code);
    const steps = [make("button", { type: "button", className: "ghost", textContent: "all items" })];
    steps[0].addEventListener("click", () => openTree([]));
    if (prefix.length) steps.push(sidChips(prefix));
    byId("path").replaceChildren(...steps);
    byId("tree-about").textContent = leaf
      ? `${number.format(total)} ${total === 1 ? "item" : "items"} with these codes, told apart by a number`
      : `${number.format(total)} ${total === 1 ? "item" : "items"} under ${number.format(children.length)} ${children.length === 1 ? "code" : "codes"}, and what most of them are`;
    byId("tree").replaceChildren(...(all ? children : children.slice(0, SHOWN)).map((child) => treeRow(prefix, child, leaf, most)));
    byId("tree").scrollTop = 0;
    byId("more").hidden = all || children.length <= SHOWN;
    byId("more").textContent = `Show all ${children.length}`;
  });
}

function treeRow(prefix, child, leaf, most) {
  const chip = make("span", { className: "code", textContent: child.code });
  const first = prefix.length ? prefix[0] : child.code;
  chip.style.setProperty("--hue", hue(first * 7 + (prefix.length ? prefix[1] ?? child.code : 0)));
  const button = make("button", { type: "button" }, chip);
  if (leaf) {
    const item = child.examples[0];
    if (item) button.append(make("span", { className: "what", textContent: titleOf(item), title: titleOf(item) }), make("span", { className: "count", textContent: "+", title: "add to the history" }));
    button.addEventListener("click", () => { if (item) { state.history.push(item); changed(); } });
    return make("li", {}, button);
  }
  const share = child.category && child.share < 0.995 ? ` ${Math.round(100 * child.share)} %` : "";
  const bar = make("b");
  bar.style.width = `${(100 * child.items) / most}%`;
  button.append(
    make("span", { className: "what", textContent: `${child.category ?? ""}${share}` }),
    make("span", { className: "count", textContent: number.format(child.items) }),
    make("span", { className: "bar" }, bar),
    make("span", { className: "like", textContent: child.examples.map(titleOf).join(" · ") }),
  );
  button.addEventListener("click", () => openTree([...prefix, child.code]));
  return make("li", {}, button);
}

// New items

async function addItem(event) {
  event.preventDefault();
  const form = event.target;
  const value = (name) => form.elements[name].value.trim();
  const item = { id: value("id"), title: value("title") };
  if (value("brand")) item.brand = value("brand");
  if (value("categories")) item.categories = [value("categories").split(">").map((name) => name.trim()).filter(Boolean)];
  await attempt(async () => {
    const added = await call("/items", item);
    form.reset();
    byId("added").replaceChildren("Added with the Semantic ID ", sidChips(added.item.sid), ", recommendable from now on.");
    await openTree(added.item.sid.slice(0, -1));
    await about();
  });
}

// Start

async function about() {
  state.info = await call("/info");
  const { items, positions, levels, generation } = state.info;
  const number_ = positions.length > levels ? " and a number" : "";
  byId("about").textContent = `${number.format(items)} items, Semantic IDs of ${levels} codes${number_}${generation ? `, run replaced ${generation} ×` : ""}`;
}

function beginWith(user) {
  [state.history, state.user, state.next] = [[...user.history], user.user, user.next];
  showHistory();
}

async function showUsers() {
  const { users } = await call("/users");
  state.users = users;
  byId("user-field").hidden = users.length === 0;
  const about = ({ user, history }) => `${user} – ${history.length} items${history.length ? `, ${titleOf(history[0])}` : ""}`;
  byId("user").append(...users.map((user, place) => make("option", { value: place, textContent: about(user).slice(0, 90) })));
  byId("user").addEventListener("change", () => {
    const user = users[byId("user").value];
    if (!user) return;
    beginWith(user);
    recommend();
  });
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
}

let typing;
byId("theme").addEventListener("click", theme);
byId("query").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(search, 150); });
byId("query").addEventListener("keydown", (event) => { if (event.key === "Enter") byId("found").querySelector("button")?.click(); if (event.key === "Escape") byId("found").hidden = true; });
document.addEventListener("click", (event) => { if (!event.target.closest(".search")) byId("found").hidden = true; });
byId("surprise").addEventListener("click", surprise);
byId("clear").addEventListener("click", () => { state.history = []; byId("list-empty").textContent = "Recommendations appear as soon as there is a history."; changed(); });
byId("best").addEventListener("click", () => chooseSearch(false));
byId("draw").addEventListener("click", () => chooseSearch(true));
byId("again").addEventListener("click", () => { state.seed += 1; recommend(); });
for (const id of ["k", "own", "category"]) byId(id).addEventListener("change", recommend);
byId("more").addEventListener("click", () => openTree(state.prefix, true));
byId("add").addEventListener("submit", addItem);

attempt(async () => {
  await about();
  byId("k").max = state.info.max_k;
  byId("own").checked = state.info.own_items;
  byId("add-panel").hidden = state.info.read_only;
  byId("category").append(...state.info.categories.map(({ name, items }) => make("option", { value: name, textContent: `${name} (${number.format(items)})` })));
  makeSliders();
  await Promise.all([openTree([]), showUsers()]);
  await fromAddress();
  document.documentElement.dataset.ready = "yes";
});
