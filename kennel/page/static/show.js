// From an answer to what is seen. Texts from outside become text nodes, never markup.

const at = (id) => document.getElementById(id);

function make(tag, className, ...inside) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...inside);
  return made;
}

function bar(className, left, width) {
  const fill = make("i", "");
  fill.style.left = `${100 * left}%`;
  fill.style.width = `${100 * width}%`;
  const track = make("span", className, fill);
  track.ariaHidden = "true";
  return track;
}

/** Two shares with as many digits as tell them apart. */
function apart(one, other) {
  let digits = 1;
  while (digits < 15 && (100 * one).toFixed(digits) === (100 * other).toFixed(digits)) digits++;
  return [one, other].map((share) => `${(100 * share).toFixed(digits)} %`);
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`;

export function clear() {
  for (const id of ["verdict", "classes", "model", "note", "hops"]) at(id).replaceChildren();
  for (const id of ["time", "again", "empty"]) at(id).hidden = true;
}

export function showError(message, code) {
  const words = make("p", "verdict bad", code ? `${message.replace(/\.$/, "")} (${code}).` : message);
  at("verdict").replaceChildren(words);
}

export function showAnswer(answer) {
  const [best] = answer.predictions;
  const verdict = answer.verdict ?? (answer.label === null ? "not_sure" : "class"); // an older function has none
  const said = {
    class: () => [headline(best.label, percent(best.probability))],
    none_of_these: () => noneOfThese(best, answer.known),
    not_sure: () => notSure(best, answer.threshold),
  };
  at("verdict").replaceChildren(...said[verdict]());
  at("classes").className = verdict === "class" ? "classes" : "classes unsure";
  at("classes").replaceChildren(...answer.predictions.map((one) =>
    make("li", "", make("span", "", one.label), make("span", "share", percent(one.probability)), bar("bar", 0, one.probability))));
  at("model").textContent = answer.model ? `Answered by ${answer.model}` : "";
}

const headline = (label, share) => make("p", "best", label, " ", make("small", "", share));

function noneOfThese(best, known) {
  const [mine, least] = apart(known.score, known.threshold);
  const why = `Its likeness to what the model knows is ${mine}, and what it knows has ${least} at least. The best guess would be ${best.label}.`;
  return [make("p", "best", "None of these"), make("p", "why", why)];
}

function notSure(best, threshold) {
  const [share, least] = apart(best.probability, threshold);
  return [make("p", "best", "Not sure"), make("p", "why", `At best ${best.label} with ${share}; the model asks for ${least}.`)];
}

/** [name, milliseconds] of each hop in the order of the way. Each is what that hop alone took. */
export function hopsOf(total, invoke, timings) {
  const { fetch_ms: fetched, endpoint_ms: endpoint, queue_ms: queue, decode_ms: decode, model_ms: model } = timings ?? {};
  const inside = (queue ?? 0) + (decode ?? 0) + (model ?? 0);
  const hops = [
    ["Browser ↔ page", total - invoke],
    [endpoint === undefined ? "Page ↔ function and all behind it" : "Page ↔ function", invoke - (fetched ?? 0) - (endpoint ?? 0)],
    ["Fetching the photo", fetched],
    [inside ? "Function ↔ endpoint" : "Function ↔ endpoint and model", endpoint === undefined ? undefined : endpoint - inside],
    ["Waiting for its turn", queue],
    ["Decoding the photo", decode],
    ["The model itself", model],
  ];
  return hops.filter(([, took]) => took !== undefined).map(([name, took]) => [name, Math.max(0, took)]);
}

export function showHops(total, invoke, timings) {
  const hops = hopsOf(total, invoke, timings);
  const whole = hops.reduce((sum, [, took]) => sum + took, 0);
  let gone = 0;
  const rows = hops.map(([name, took]) => {
    const row = make("li", "", make("span", "what", name), bar("track", gone / whole, took / whole), make("span", "took", milliseconds(took)));
    gone += took;
    return row;
  });
  rows.push(make("li", "total", make("span", "what", "Altogether"), make("span", "track"), make("span", "took", milliseconds(total))));
  at("hops").replaceChildren(...rows);
  at("time").hidden = false;
}

/** Tabs of `texts` (name -> text); arrow keys move between them. */
export function showCode(texts) {
  const names = Object.keys(texts);
  const chosen = names.includes(at("tabs").dataset.chosen) ? at("tabs").dataset.chosen : names[0];
  at("tabs").replaceChildren(...names.map((name) => tab(name, texts, names)));
  select(chosen, texts);
  at("again").hidden = false;
}

function tab(name, texts, names) {
  const button = make("button", "", name);
  Object.assign(button, { type: "button", role: "tab", id: `tab-${name.replace(/\W/g, "-")}` });
  button.setAttribute("aria-controls", "panel");
  button.addEventListener("click", () => select(name, texts));
  button.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    select(names[(names.indexOf(name) + step + names.length) % names.length], texts);
    at("tabs").querySelector("[aria-selected=true]").focus();
  });
  return button;
}

function select(name, texts) {
  at("tabs").dataset.chosen = name;
  for (const one of at("tabs").children) {
    const mine = one.textContent === name;
    one.ariaSelected = String(mine);
    one.tabIndex = mine ? 0 : -1;
    if (mine) at("panel").setAttribute("aria-labelledby", one.id);
  }
  at("code").textContent = texts[name];
}
