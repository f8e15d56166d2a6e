// A photo or an address in, an answer out. Whatever was asked last is what is shown.

import { fit, preview } from "./picture.js";
import { clear, showAnswer, showCode, showError, showHops } from "./show.js";

const at = (id) => document.getElementById(id);
const about = fetch("about").then((answer) => answer.json());
let asking = new AbortController();

about.then((it) => (at("where").textContent = `· ${it.stage}, ${it.where}`));

/** `prepare` resolves to {body, type, source, value, shown}: what goes to the function, and how it is told elsewhere. */
async function ask(prepare) {
  asking.abort();
  const mine = (asking = new AbortController());
  clear();
  at("answer").ariaBusy = "true";
  try {
    const question = await prepare();
    if (mine.signal.aborted) return;
    await answered(question, mine.signal);
  } catch (error) {
    if (!mine.signal.aborted) showError(error instanceof TypeError ? "The page's server does not answer: is `kennel` still running?" : error.message);
  } finally {
    if (!mine.signal.aborted) at("answer").ariaBusy = "false";
  }
}

async function answered({ body, type, source, value, shown }, signal) {
  const started = performance.now();
  const response = await fetch("classify", { method: "POST", body, headers: { "Content-Type": type }, signal });
  const raw = await response.text();
  const total = performance.now() - started;
  const answer = JSON.parse(raw);
  const invoke = Number(/invoke;dur=([\d.]+)/.exec(response.headers.get("Server-Timing"))?.[1] ?? 0);
  if (answer.error) showError(answer.error.message, answer.error.code);
  else showAnswer(answer);
  if (response.ok) showHops(total, invoke, answer.timings);
  const query = new URLSearchParams({ source, value, type });
  const snippets = await (await fetch(`snippets?${query}`, { signal })).json();
  showCode({ ...snippets, Request: JSON.stringify(shown, null, 2), Answer: JSON.stringify(answer, null, 2) });
}

const askFile = (file) => ask(async () => {
  at("invitation").hidden = true;
  at("address").value = "";
  const size = await preview(file, at("photo"));
  if (!size) at("invitation").hidden = false;
  const { body, name, note } = await fit(file, at("photo"), size, await about);
  at("note").textContent = note;
  const type = body.type.startsWith("image/") ? body.type : "application/octet-stream";
  const shown = { image: `(${body.size.toLocaleString("en")} bytes of ${name} in base64)` };
  return { body, type, source: "image", value: name, shown };
});

const askAddress = (address) => ask(async () => {
  at("photo").hidden = true;
  at("invitation").hidden = false;
  const source = address.startsWith("s3://") ? "s3_uri" : "url";
  const shown = { [source]: address };
  return { body: JSON.stringify(shown), type: "application/json", source, value: address, shown };
});

/** From a drop or the clipboard: a file first, else an address. */
function take(data) {
  const [file] = data.files;
  const address = (data.getData("text/uri-list") || data.getData("text/plain")).trim().split("\n")[0];
  if (file) askFile(file);
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
  const address = at("address").value.trim();
  if (address) askAddress(address);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => event.relatedTarget ?? at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer);
});
document.addEventListener("paste", (event) => {
  if (event.target.id !== "address" && take(event.clipboardData)) event.preventDefault();
});
at("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(at("code").textContent);
  at("copy").textContent = "Copied";
  setTimeout(() => (at("copy").textContent = "Copy"), 1500);
});
