"use strict";
// The names of this browser's jobs outlive a reload; all else is asked of the server.
const KEPT = "tecafn-jobs";
const byId = (id) => document.getElementById(id);
const known = new Map();

function keep() {
  try { localStorage.setItem(KEPT, JSON.stringify([...known.keys()].slice(-50))); } catch { /* private */ }
}
function kept() {
  try { return JSON.parse(localStorage.getItem(KEPT) || "[]").filter((id) => /^[0-9a-f]{32}$/.test(id)); }
  catch { return []; }
}
function make(tag, text, className) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  if (className) node.className = className;
  return node;
}
async function reason(response) {
  try {
    const { detail } = await response.json();
    return typeof detail === "string" ? detail : detail.map((one) => one.msg).join("; ");
  } catch { return `the server answered ${response.status}`; }
}
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

const hours = (count) => `${count} ${count === 1 ? "hour" : "hours"}`;

async function about() {
  const response = await fetch("/v1/about");
  if (response.status === 401) { byId("login").hidden = false; byId("drop").hidden = true; return false; }
  const said = await response.json();
  byId("login").hidden = true;
  byId("drop").hidden = false;
  byId("limits").textContent = `At most ${said.max_mb} MB and ${said.max_minutes} minutes. ` +
    (said.keep_clip_hours ? `The clip is deleted ${hours(said.keep_clip_hours)} after its job has ended, ` : "The clip is deleted as soon as its job has ended, ") +
    `the result after ${hours(said.keep_result_hours)}.`;
  byId("model").textContent = `Model: ${said.model.name}, trained on ${said.model.dataset}. Version ${said.version}.`;
  return true;
}

// A clip goes up

function send(file) {
  const form = new FormData();
  const text = byId("text").value.trim();
  if (text) form.append("text", text);
  if (byId("face").value) form.append("face", byId("face").value);
  form.append("file", file);
  const row = card({ file: file.name });
  row.state.textContent = "sending";
  const request = new XMLHttpRequest();  // fetch does not tell how much has gone up
  request.open("POST", "/v1/jobs");
  request.setRequestHeader("Idempotency-Key", crypto.randomUUID ? crypto.randomUUID() : String(Math.random()));
  request.responseType = "json";
  request.upload.onprogress = (event) => {
    if (event.lengthComputable) row.bar.value = event.loaded / event.total;
  };
  request.onload = () => {
    if (request.status === 202 || request.status === 200) {
      const job = request.response;
      known.set(job.job_id, row);
      keep();
      byId("said").textContent = `${job.file} was sent`;
      show(job);
      follow(job.job_id);
      byId("text").value = "";
      return;
    }
    row.item.remove();
    const detail = request.response && request.response.detail;
    byId("problem").textContent = `${file.name}: ` + (typeof detail === "string" ? detail : `the server answered ${request.status}`);
    if (request.status === 401) about();
    empty();
  };
  request.onerror = () => {
    row.item.remove();
    byId("problem").textContent = `${file.name} could not be sent; is it too large, or the server gone?`;
    empty();
  };
  request.send(form);
}

// A job on the page

function card(job) {
  const item = make("li");
  const title = make("h3", job.file);
  const state = make("p", "", "state");
  const bar = make("progress");
  bar.max = 1;
  bar.value = 0;
  bar.setAttribute("aria-label", `Progress of ${job.file}`);
  const actions = make("div", "", "row");
  item.append(title, state, bar, actions);
  byId("jobs").prepend(item);
  empty();
  return { item, title, state, bar, actions };
}

const WORDS = { QUEUED: "waiting", IN_PROGRESS: "starting", COMPLETED: "done", FAILED: "failed" };

function show(job) {
  const row = known.get(job.job_id);
  if (!row) return;
  const before = row.item.className;
  row.item.className = job.state;
  row.title.textContent = job.file;
  row.bar.setAttribute("aria-label", `Progress of ${job.file}`);
  row.bar.hidden = job.state === "COMPLETED" || job.state === "FAILED";
  row.bar.value = job.progress;
  const share = `${Math.round(100 * job.progress)} %`;
  row.state.textContent = job.state === "IN_PROGRESS" ? `${job.step || WORDS[job.state]}, ${share}`
    : job.state === "FAILED" ? `failed: ${job.reason}` : WORDS[job.state];
  if (before === job.state) return;
  byId("said").textContent = `${job.file}: ${WORDS[job.state]}`;
  row.actions.replaceChildren();
  if (job.state === "COMPLETED") {
    const look = make("button", "Show the timeline");
    look.type = "button";
    look.setAttribute("aria-label", `Show the timeline of ${job.file}`);
    look.onclick = () => open(job);
    row.actions.append(look);
    for (const [format, name] of [["json", "JSON"], ["csv", "CSV"], ["vtt", "Subtitles"]]) {
      const link = make("a", name, "button");
      link.href = `/v1/jobs/${job.job_id}/result?format=${format}`;
      link.download = "";
      link.setAttribute("aria-label", `${name} of ${job.file}`);
      row.actions.append(link);
    }
  }
  const remove = make("button", job.state === "QUEUED" || job.state === "IN_PROGRESS" ? "Cancel" : "Delete");
  remove.type = "button";
  remove.setAttribute("aria-label", `${remove.textContent} ${job.file}`);
  remove.onclick = async () => {
    const response = await fetch(`/v1/jobs/${job.job_id}`, { method: "DELETE" });
    if (response.ok || response.status === 404) forget(job.job_id, `${job.file} was deleted`);
    else byId("problem").textContent = await reason(response);
  };
  row.actions.append(remove);
}

function forget(id, said) {
  const row = known.get(id);
  if (row) row.item.remove();
  known.delete(id);
  keep();
  if (said) byId("said").textContent = said;
  if (byId("report").dataset.job === id) close();
  empty();
}
function empty() { byId("none").hidden = byId("jobs").childElementCount > 0; }

function open(job) {
  byId("report").dataset.job = job.job_id;
  byId("report").src = job.links.page;
  byId("shown-title").textContent = job.file;
  byId("apart").href = byId("report").src;
  byId("shown").hidden = false;
  byId("shown").scrollIntoView();
  byId("close").focus({ preventScroll: true });
}
function close() {
  byId("shown").hidden = true;
  byId("report").removeAttribute("src");
  delete byId("report").dataset.job;
}

// Progress: events while they flow, and from the start again where they break off

async function follow(id) {
  for (let wait = 1; known.has(id); wait = Math.min(2 * wait, 20)) {
    try {
      const response = await fetch(`/v1/jobs/${id}/events`);
      if (response.status === 404) return forget(id);
      if (response.status === 401) { await about(); return; }
      if (response.ok && (await read(response.body.getReader(), id))) return;
      if (response.ok) wait = 1;
    } catch { /* the server is away; it comes back */ }
    await pause(wait);
  }
}

async function read(reader, id) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return false;
    text += decoder.decode(value, { stream: true });
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      if (event.startsWith("event: deleted")) { forget(id); return true; }
      if (!event.startsWith("event: job\ndata: ")) continue;
      const job = JSON.parse(event.slice("event: job\ndata: ".length));
      show(job);
      if (job.state === "COMPLETED" || job.state === "FAILED") return true;
    }
  }
}

// The page

function take(files) {
  byId("problem").textContent = "";
  for (const file of files) send(file);
}
function wire() {
  const zone = byId("zone");
  byId("file").onchange = (event) => { take(event.target.files); event.target.value = ""; };
  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
  }
  zone.addEventListener("dragleave", (event) => {
    if (!zone.contains(event.relatedTarget)) zone.classList.remove("over");
  });
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(event.dataTransfer.files);
  });
  byId("drop").onsubmit = (event) => event.preventDefault();
  byId("close").onclick = close;
  byId("login").onsubmit = async (event) => {
    event.preventDefault();
    const response = await fetch("/v1/session", {
      method: "POST", headers: { Authorization: `Bearer ${byId("token").value}` },
    });
    if (!response.ok) { byId("login-problem").textContent = "The token is wrong."; return; }
    byId("token").value = "";
    byId("login-problem").textContent = "";
    if (await about()) resume();
  };
}
function resume() {
  for (const id of kept()) {
    if (known.has(id)) continue;
    known.set(id, card({ file: "..." }));
    follow(id);
  }
}
async function start() {
  wire();
  try { if (await about()) resume(); }
  catch { byId("problem").textContent = "The server does not answer."; }
}
start();
