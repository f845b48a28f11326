// The page: who runs, the prompt box, and the stream of events.

import {Canvas, shown} from "./canvas.js";

const KEPT = 12; // canvases on the page
const LISTED = 200; // requests in the list
const $ = (id) => document.getElementById(id);
const texts = new Map();
const canvases = new Map(); // by request
const rows = new Map(); // of the list, by request
let settings, followed = [], reading, runs = 0;

// ---- the server ----

function api(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = {...options.headers, ...(key ? {Authorization: `Bearer ${key}`} : {})};
  return fetch(new URL(path, location.href), {...options, headers});
}

/** As `api`, asking for the key until it is the right one. */
async function ask(path, options) {
  for (;;) {
    const response = await api(path, options);
    if (response.status !== 401) return response;
    sessionStorage.setItem("key", await key());
  }
}

function key() {
  $("token").value = "";
  $("key").showModal();
  return new Promise((done) => { $("key").onclose = () => done($("token").value); });
}

/** Read events until the page leaves; `ready` is called when none can be missed any more. */
async function read(ready) {
  reading?.abort();
  reading = new AbortController();
  const mine = reading, query = new URLSearchParams({first: true});
  for (const id of followed) query.append("follow", id);
  try {
    const response = await ask(`v1/dllm/watch?${query}`, {signal: mine.signal});
    if (!response.ok) throw new Error(`${response.status}`);
    let rest = "";
    for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + part).split("\n");
      rest = lines.pop();
      for (const text of lines) take(JSON.parse(text), ready);
    }
  } catch (why) {
    if (mine.signal.aborted) return;
  }
  $("state").textContent = "connection lost, trying again";
  setTimeout(() => read(() => {}), 2000);
}

function take(event, ready) {
  for (const [id, text] of Object.entries(event.texts ?? {})) texts.set(Number(id), text);
  if (event.ready) {
    $("state").textContent = "watching";
    overview({running: [], waiting: 0}); // until the engine says otherwise: one without requests says nothing
    ready();
  } else if (event.running) overview(event);
  else canvas(event.id).take(event);
}

// ---- canvases ----

function canvas(id) {
  let found = canvases.get(id) ?? adopted(id);
  if (found) return found;
  for (const [old, other] of canvases) {
    if (canvases.size < KEPT) break;
    if (!other.ended || other.at !== null || other.card.contains(document.activeElement)) continue;
    other.card.remove();
    canvases.delete(old);
  }
  found = new Canvas(id, texts, settings.mask);
  canvases.set(id, found);
  const side = followed.findIndex((name) => id.startsWith(name)); // the second of a pair stands behind the first
  const beside = side > 0 && [...canvases.values()].find((other) => other.id.startsWith(followed[side - 1]));
  if (beside) beside.card.after(found.card);
  else $("canvases").prepend(found.card);
  return found;
}

/** The canvas of an answer that came before its first event did, which has the whole id. */
function adopted(id) {
  const early = [...canvases.values()].find((other) => !other.whole && id.startsWith(other.id));
  if (!early) return undefined;
  canvases.delete(early.id);
  canvases.set(id, early);
  early.rename(id);
  return early;
}

/** All running requests. A row stays the same element while its request runs, so that its button can be pressed. */
function overview({running, waiting}) {
  const more = running.length > LISTED ? `, the first ${LISTED} of them here` : "";
  $("count").textContent = `${running.length}${waiting ? `, ${waiting} waiting` : ""}${more}`;
  const ids = new Set(running.map(([id]) => id));
  for (const [id, row] of rows) {
    if (ids.has(id)) continue;
    row.remove();
    rows.delete(id);
  }
  for (const [id, cache, passes, final, length] of running.slice(0, LISTED)) {
    const {cells} = rows.get(id) ?? listed(id, cache);
    cells[2].textContent = passes;
    cells[3].textContent = `${final} of ${length}`;
  }
  for (const [id, found] of canvases) if (!ids.has(id)) found.leave();
}

function listed(id, cache) {
  const row = $("running").tBodies[0].insertRow(), show = document.createElement("button");
  rows.set(id, row);
  for (const text of [id, cache, "", ""]) row.insertCell().textContent = text;
  show.textContent = "show";
  show.onclick = () => follow(id);
  row.insertCell().append(show);
  return row;
}

function follow(id) {
  followed = [...followed.filter((other) => other !== id), id].slice(-4);
  return new Promise((ready) => read(ready));
}

// ---- the prompt box ----

function slider(option, value = option.default) {
  if (option.choices) {
    const [label, select] = choice(option.name, option.choices, value);
    select.name = option.key;
    return label;
  }
  const label = document.createElement("label"), name = document.createElement("span");
  const input = document.createElement("input"), output = document.createElement("output");
  name.textContent = option.name;
  label.title = option.help;
  input.name = option.key;
  if (option.type === "bool") Object.assign(input, {type: "checkbox", checked: value});
  else if (option.low !== null && value !== null && ["int", "float"].includes(option.type)) {
    const high = option.high !== null && option.high < 1e4 ? option.high : Math.max(4 * value, 8);
    Object.assign(input, {type: "range", min: option.low, max: high, value});
    input.step = option.type === "int" ? 1 : "any";
    input.value = value;
  } else Object.assign(input, {type: option.type === "str" ? "text" : "number", step: "any", value: value ?? ""});
  const tell = () => { output.textContent = input.type === "range" ? String(Math.round(input.value * 100) / 100) : ""; };
  input.addEventListener("input", tell);
  tell();
  label.append(name, input, output);
  return label;
}

function choice(title, names, chosen) {
  const label = document.createElement("label"), select = document.createElement("select");
  const name = document.createElement("span");
  name.textContent = title;
  for (const text of names) select.add(new Option(text, text, false, text === chosen));
  label.append(name, select);
  return [label, select];
}

function form(set, cache) {
  const legend = set.querySelector("legend"), own = document.createElement("div"), rule = document.createElement("div");
  const [policyLabel, policy] = choice("cache", settings.policies.map((p) => p.name), cache);
  const [ruleLabel, rules] = choice("rule", settings.rules.map((r) => r.name), settings.rule);
  policy.name = "dllm_cache";
  const fill = () => {
    own.replaceChildren(...settings.policies.find((p) => p.name === policy.value).options.map((o) => slider(o)));
  };
  const fillRule = () => {
    const option = settings.rules.find((r) => r.name === rules.value);
    const usual = {threshold: 0.9, factor: 1, steps: 32, tokens_per_step: 2, entropy_bound: 0.2, denoising_steps: 4};
    const value = rules.value === settings.rule ? settings.value : option.default ?? usual[option.name] ?? option.low ?? 1;
    rule.replaceChildren(slider(option, value));
  };
  policy.onchange = fill;
  rules.onchange = fillRule;
  fill();
  fillRule();
  set.replaceChildren(legend, policyLabel, own, ruleLabel, rule, ...settings.general.map((o) => slider(o)));
}

/** The settings of one side that are not the server's own. */
function chosen(set) {
  const asked = {};
  let length;
  for (const input of set.querySelectorAll("input, select[name]")) {
    if (input.name === "dllm_gen_length") length = Number(input.value);
    else if (input.type === "checkbox") asked[input.name] = input.checked;
    else if (input.value !== "" && input.name) asked[input.name] = input.tagName === "SELECT" || input.type === "text" ? input.value : Number(input.value);
  }
  return [asked, length];
}

async function run(set, id) {
  const [asked, length] = chosen(set), prompt = $("prompt").value;
  const body = {model: settings.model, max_tokens: length, vllm_xargs: asked};
  if (settings.chat) body.messages = [{role: "user", content: prompt}];
  else body.prompt = prompt;
  const own = `${settings.chat ? "chatcmpl" : "cmpl"}-${id}`, from = performance.now();
  const response = await ask(settings.chat ? "v1/chat/completions" : "v1/completions", {
    method: "POST", headers: {"Content-Type": "application/json", "X-Request-Id": id}, body: JSON.stringify(body),
  });
  const answer = await response.json(), seconds = (performance.now() - from) / 1000;
  const found = [...canvases.values()].find((c) => c.id.startsWith(own)) ?? canvas(own);
  found.answer.classList.toggle("error", !response.ok);
  if (!response.ok) found.answer.textContent = answer.error?.message ?? answer.detail ?? `HTTP ${response.status}`;
  else {
    const text = answer.choices[0].message?.content ?? answer.choices[0].text ?? "";
    found.answer.textContent = `${[...text].map((c) => (c === "\n" ? c : shown(c))).join("")}\n(${seconds.toFixed(2)} s)`;
  }
}

$("ask").onsubmit = async (event) => {
  event.preventDefault();
  const sides = [$("one"), ...($("compare").checked ? [$("two")] : [])];
  const run_id = `watch-${Date.now().toString(36)}-${runs++}`;
  const ids = sides.map((_, i) => `${run_id}-${"ab"[i]}`);
  followed = ids.map((id) => `${settings.chat ? "chatcmpl" : "cmpl"}-${id}`);
  await new Promise((ready) => read(ready));
  // one after the other, so that neither's time is the other's
  for (let i = 0; i < sides.length; i++) await run(sides[i], ids[i]);
};
$("compare").onchange = () => { $("two").hidden = !$("compare").checked; };
$("prompt").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
};

// ---- the beginning ----

async function begin() {
  const response = await ask("v1/dllm/watch/settings");
  settings = await response.json();
  $("model").textContent = settings.model;
  form($("one"), settings.cache);
  form($("two"), settings.policies.find((p) => p.name !== settings.cache)?.name);
  const traced = new URLSearchParams(location.search).get("trace");
  if (traced) {
    const answer = await ask(`v1/dllm/watch/trace?${new URLSearchParams({id: traced})}`), line = await answer.json();
    const found = canvas(traced);
    if (answer.ok) {
      for (const [id, text] of Object.entries(line.texts)) texts.set(Number(id), text);
      found.replay(line);
    } else {
      found.answer.classList.add("error");
      found.answer.textContent = line.detail ?? line.error?.message;
    }
  }
  read(() => {});
}

begin();
