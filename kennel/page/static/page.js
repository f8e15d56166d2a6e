// A photo or an address in, an answer out. Whatever was asked last is what is shown.

import { fit, preview } from "./picture.js";
import { clear, showAnswer, showCode, showError, showHops } from "./show.js";

const at = (id) => document.getElementById(id);
const about = fetch("about").then((answer) => answer.json());
let asking = new AbortController();

about.then((it) => (at("where").textContent = `· ${it.stage}, ${it.where}`));

/** `prepare` resolves to what goes to the function (body, type) and how that is told (source, value, shown, note). */
async function ask(prepare) {
  asking.abort();
  const mine = (asking = new AbortController());
  clear();
  at("answer").ariaBusy = "true";
  try {
    await answered(await prepare(), mine.signal);
  } catch (error) {
    if (!mine.signal.aborted) showError(error.message);
  } finally {
    if (!mine.signal.aborted) at("answer").ariaBusy = "false";
  }
}

async function answered({ body, type, source, value, shown, note = [] }, signal) {
  signal.throwIfAborted(); // while it was prepared
  at("note").replaceChildren(...note);
  const started = performance.now();
  const response = await call("classify", { method: "POST", body, headers: { "Content-Type": type }, signal });
  const answer = await json(response);
  const total = performance.now() - started;
  const invoke = Number(/invoke;dur=([\d.]+)/.exec(response.headers.get("Server-Timing"))?.[1] ?? 0);
  if (answer?.error) showError(answer.error.message, answer.error.code);
  else if (answer?.predictions?.length) showAnswer(answer);
  else showError("The function's answer names no classes.");
  if (response.ok) showHops(total, invoke, answer?.timings);
  const query = new URLSearchParams({ source, value, type });
  const snippets = await json(await call(`snippets?${query}`, { signal }));
  showCode({ ...snippets, Request: JSON.stringify(shown, null, 2), Answer: JSON.stringify(answer, null, 2) });
}

const call = (address, options) => fetch(address, options).catch(() => {
  throw new Error("The page's server does not answer: is `kennel` still running?");
});

const json = (response) => response.json().catch(() => {
  throw new Error("The function answered something else than JSON.");
});

const askFile = (file, count = 1) => ask(async () => {
  at("address").value = "";
  const size = await preview(file, at("photo"));
  const { body, name, note } = await fit(file, at("photo"), size, await about);
  if (count > 1) note.unshift(`Of ${count} photos this is the first. `);
  const type = body.type.startsWith("image/") ? body.type : "application/octet-stream";
  const shown = { image: `(${body.size.toLocaleString("en")} bytes of ${name} in base64)` };
  return { body, type, source: "image", value: name, shown, note };
});

const askAddress = (address) => ask(async () => {
  at("photo").hidden = true;
  const source = address.startsWith("s3://") ? "s3_uri" : "url";
  const shown = { [source]: address };
  return { body: JSON.stringify(shown), type: "application/json", source, value: address, shown };
});

/** From a drop or the clipboard: a file first, else an address. */
function take(data) {
  const [file] = data.files;
  const address = (data.getData("text/uri-list") || data.getData("text/plain")).trim().split("\n")[0];
  if (file) askFile(file, data.files.length);
  else if (/^(https?|s3):\/\//.test(address)) {
    at("address").value = address;
    askAddress(address);
  } else return false;
  return true;
}

at("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) askFile(file);
  event.target.value = ""; // so that the same file may be chosen again
});
at("by-address").addEventListener("submit", (event) => {
  event.preventDefault();
  askAddress(at("address").value.trim());
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").classList.remove("over"); // it left the window
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer);
});
document.addEventListener("paste", (event) => {
  if (event.target.id !== "address" && take(event.clipboardData)) event.preventDefault();
});
at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("code").textContent);
    at("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(at("code"));
    at("copy").textContent = "Selected";
  }
  setTimeout(() => (at("copy").textContent = "Copy"), 1500);
});
