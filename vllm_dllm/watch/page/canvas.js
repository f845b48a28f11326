// One canvas: what its events said, and how a moment of it looks.

const CONTROL = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A token's text with nothing in it that acts on the page: what has no shape of its own gets one. */
export function shown(text) {
  return text.replace(/\n/g, "⏎").replace(CONTROL, (c) => {
    const code = c.charCodeAt(0);
    return code < 0x20 ? String.fromCharCode(0x2400 + code) : `<${code.toString(16).padStart(4, "0")}>`;
  });
}

function spread(ranges, length) {
  const inside = new Uint8Array(length);
  for (const [start, stop] of ranges) inside.fill(1, start, stop);
  return inside;
}

function element(name, classes, text) {
  const found = document.createElement(name);
  found.className = classes;
  if (text !== undefined) found.textContent = text;
  return found;
}

export class Canvas {
  /** `texts`: by token id, shared by all canvases; `mask`: the mask token's id. */
  constructor(id, texts, mask) {
    this.id = id;
    this.texts = texts;
    this.mask = mask;
    this.frames = []; // one for each pass seen, and before them the canvas as it was found
    this.at = null; // the frame shown; null: always the last one
    this.ended = null;
    this.playing = null;
    this.dirty = false;
    this.build();
  }

  // ---- events ----

  take(event) {
    if (event.tokens) this.begin(event);
    else if ("pass" in event) this.frames.push(event);
    else if (event.ended) this.ended = event.ended;
    this.draw();
  }

  /** Nothing more is told of it. */
  leave() {
    if (!this.whole || this.ended) return;
    this.ended = "not followed";
    this.draw();
  }

  rename(id) {
    this.id = id;
    this.card.setAttribute("aria-label", `canvas of ${id}`);
    this.card.querySelector(".id").textContent = id;
  }

  begin(event) {
    this.ended = null;
    if (this.whole) return this.catchUp(event);
    this.whole = event;
    this.given = spread(event.given, event.tokens.length);
    this.frames = [{...event, computed: [], unmasked: [], put: [], refreshed: {}}];
    this.cells.replaceChildren(...event.tokens.map((_, i) => element("span", "cell", i < event.prompt_len ? "" : " ")));
    for (let i = 0; i < event.tokens.length; i++) this.cells.children[i].title = `position ${i}`;
    this.strip.replaceChildren(...[...event.pages].map((_, i) => element("span", "page", String(i))));
  }

  /** The stream began anew: what the passes did that were not seen is one frame. */
  catchUp(event) {
    const {passes} = this.frames[this.last];
    if (passes === event.passes) return; // there were none
    const unmasked = [...event.tokens.keys()].filter((i) => event.unmasked_in[i] >= passes);
    const put = unmasked.map((i) => event.tokens[i]);
    this.frames.push({...event, existed: 0, computed: [], refreshed: {}, unmasked, put});
  }

  /** A finished request as the trace file has it: what was unmasked when, without what was computed. */
  replay(line) {
    const first = line.prompt_len, length = first + line.gen_length;
    const tokens = Array(first).fill(null).concat(Array(line.gen_length).fill(this.mask));
    const state = {end: length, dropped_from: length, block: [first, length], pages: ""};
    this.take({
      tokens, given: [[0, first]], unmasked_in: Array(length).fill(-1), prompt_len: first, response_end: length,
      decoded_end: length, cache: line.cache, rule: "", page_size: length, passes: 0, ...state,
    });
    line.unmasked.forEach((all, pass) => {
      const numbers = all.filter((n) => n < line.gen_length); // what overflows the response is not in the file
      this.take({
        pass, existed: length, computed: [], refreshed: {}, unmasked: numbers.map((n) => n + first),
        put: numbers.map((n) => line.output_ids[n]), queries: line.query_tokens[pass], passes: pass + 1, ...state,
      });
    });
    this.take({ended: line.finish_reason});
  }

  // ---- what is on the page ----

  build() {
    this.card = element("article", "");
    this.card.tabIndex = 0;
    const title = element("h3", "");
    this.name = element("span", "", "");
    title.append(this.name, element("span", "id"));
    this.numbers = element("p", "numbers");
    this.cells = element("div", "cells");
    this.cells.tabIndex = -1;
    this.strip = element("div", "pages");
    this.why = element("div", "why pale");
    this.answer = element("p", "answer");
    this.controls = element("div", "controls");
    this.hold = element("button", "", "hold");
    this.slider = element("input", "");
    Object.assign(this.slider, {type: "range", min: 0, max: 0, value: 0});
    this.slider.setAttribute("aria-label", "pass");
    const back = element("button", "", "◀"), on = element("button", "", "▶"), again = element("button", "", "replay");
    back.setAttribute("aria-label", "one pass back");
    on.setAttribute("aria-label", "one pass on");
    back.onclick = () => this.step(-1);
    on.onclick = () => this.step(1);
    again.onclick = () => this.play();
    this.hold.onclick = () => this.toggle();
    this.slider.oninput = () => this.show(Number(this.slider.value));
    this.controls.append(this.hold, back, this.slider, on, again);
    this.card.append(title, this.numbers, this.cells, this.strip, this.why, this.controls, this.answer);
    this.card.onkeydown = (event) => this.key(event);
    this.rename(this.id);
  }

  key(event) {
    if (event.target !== this.card) return;
    const acts = {
      " ": () => this.toggle(), ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1),
      Home: () => this.show(0), End: () => this.show(null), r: () => this.play(),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  get last() { return this.frames.length - 1; }

  toggle() { this.stop(); this.show(this.at === null ? this.last : null); }

  step(by) {
    this.stop();
    this.show(Math.min(Math.max((this.at ?? this.last) + by, 0), this.last));
  }

  show(frame) { this.at = frame; this.draw(); }

  stop() { clearInterval(this.playing); this.playing = null; }

  play() {
    this.stop();
    this.show(0);
    const pause = Math.max(40, Math.min(300, 8000 / this.frames.length));
    this.playing = setInterval(() => {
      if (this.at === null || this.at >= this.last) this.stop();
      else this.show(this.at + 1);
    }, pause);
  }

  draw() {
    if (this.dirty) return;
    this.dirty = true;
    requestAnimationFrame(() => { this.dirty = false; this.paint(); });
  }

  paint() {
    const {whole, frames} = this;
    if (!whole) return;
    const at = Math.min(this.at ?? this.last, this.last), frame = frames[at];
    const {block, end} = frames[Math.max(at - 1, 0)]; // as they were in the pass
    const tokens = whole.tokens.slice(), masked = whole.unmasked_in.map((pass, i) => pass < 0 && !this.given[i]);
    let computed = 0, all = 0, unmasked = 0;
    for (const past of frames.slice(1, at + 1)) {
      past.unmasked.forEach((position, i) => { tokens[position] = past.put[i]; masked[position] = false; });
      unmasked += past.unmasked.length;
      computed += past.queries ?? past.computed.reduce((sum, [start, stop]) => sum + stop - start, 0);
      all += past.existed;
    }
    const fresh = new Set(frame.unmasked), seen = spread(frame.computed, tokens.length);
    for (let i = 0; i < tokens.length; i++) this.cell(i, tokens[i], masked[i], fresh.has(i), seen[i], block, end, frame);
    this.paintPages(frame);
    const passes = frame.passes - whole.passes;
    this.name.textContent = [whole.cache, whole.rule].filter(Boolean).join(", ");
    this.numbers.replaceChildren(...[
      `pass ${frame.passes}`,
      all ? `${(100 * computed / all).toFixed(0)} % computed` : "",
      passes ? `${(unmasked / passes).toFixed(1)} tokens a pass` : "",
      this.ended && at === this.last ? this.ended : this.at === null ? "" : "held",
    ].filter(Boolean).map((text) => element("span", "", text)));
    this.hold.textContent = this.at === null ? "hold" : "go on";
    this.slider.max = this.last;
    this.slider.value = at;
    this.card.classList.toggle("ended", Boolean(this.ended));
  }

  cell(i, token, masked, fresh, computed, block, end, frame) {
    const {whole} = this, cell = this.cells.children[i];
    let kind = "cell";
    if (i < whole.prompt_len || i >= whole.decoded_end) kind += " prompt";
    else if (i >= whole.response_end) kind += " overflow";
    else if (this.given[i]) kind += " given";
    if (masked) kind += " masked";
    if (masked && i >= frame.dropped_from) kind += " dropped";
    if (fresh) kind += " fresh";
    if (computed) kind += " computed";
    if (i >= block[0] && i < block[1]) kind += " active";
    if (i >= end) kind += " absent";
    const text = masked ? " " : token === null ? "·" : shown(this.texts.get(token) ?? `#${token}`);
    if (cell.className !== kind) cell.className = kind;
    if (cell.textContent !== text) cell.textContent = text;
  }

  paintPages(frame) {
    const again = new Set(Object.values(frame.refreshed).flat());
    [...frame.pages].forEach((state, i) => {
      const kind = state === "." ? "page absent" : `page ${state}${again.has(i) ? " again" : ""}`;
      if (this.strip.children[i].className !== kind) this.strip.children[i].className = kind;
    });
    const reasons = Object.entries(frame.refreshed).map(([reason, pages]) => `${reason} (${pages.length})`);
    this.why.textContent = reasons.length ? `pages refreshed for: ${reasons.join(", ")}` : " ";
  }
}
