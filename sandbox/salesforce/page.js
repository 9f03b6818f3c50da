"use strict";

const PAGE = 50;
const REFRESH_MS = 2000;
const $ = (id) => document.getElementById(id);
let secret = "";
let objects = [];
let kinds = [];
let before = null; // the place behind the last record shown; null for the newest ones
let shownTotal = 0;
let asked = 0;

async function ask(method, path, body) {
  const headers = {};
  if (secret) headers.authorization = `Bearer ${secret}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(`/control/${path}`, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The sandbox does not answer. It is asked again every two seconds.");
  }
  const answer = await response.json();
  $("unlock").hidden = response.status !== 401;
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Text is all that this makes of what it is given.
function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A look that succeeds takes away only what a look has told: why an action was refused stays until the next action.
async function trying(action, isLook = false) {
  let problem = "";
  try {
    await action();
    if (isLook && $("problem").dataset.by !== "look") return;
  } catch (error) {
    problem = error.message;
  }
  $("problem").dataset.by = isLook ? "look" : "action";
  $("problem").hidden = !problem;
  if ($("problem").textContent !== problem) $("problem").textContent = problem;
}

function sum(counts) {
  return Object.entries(counts).map(([name, count]) => `${count} × ${name}`).join(", ") || "none";
}

async function showCounts() {
  const counts = await ask("GET", "counts");
  const held = Object.entries(counts.records).map(([name, count]) => `${count} ${name}`).join(", ");
  $("counts").textContent =
    `${held} · calls: ${sum(counts.upsert)} · queries: ${sum(counts.query)} · created ${counts.created}, updated ${counts.updated}, ` +
    `refused ${sum(counts.refused)} · tokens issued ${counts.tokens_issued} · ` +
    (counts.calls_per_second === null ? "no limit of calls" : `at most ${counts.calls_per_second} calls a second`);
}

function describe({ fault, hits }) {
  const known = kinds.find((one) => one.kind === fault.kind);
  const rest = Object.entries(fault)
    .filter(([name, value]) => !["kind", "endpoint", "after_apply", "calls"].includes(name) && value !== null)
    .map(([name, value]) => `${name} ${value}`);
  const where = `${fault.endpoint}${fault.after_apply ? ", after it was applied" : ""}`;
  const times = fault.calls ? `${hits} of ${fault.calls} calls` : `${hits} calls so far`;
  return [`${fault.kind}: ${known ? known.description : ""}`, where, ...rest, times].join(" · ");
}

async function showFaults() {
  const listed = await ask("GET", "faults");
  kinds = listed.kinds;
  if (!$("kind").options.length) {
    $("kind").append(...kinds.map((one) => element("option", `${one.kind}: ${one.description}`, { value: one.kind })));
    showParameters();
  }
  $("no-faults").hidden = listed.faults.length > 0;
  $("clear").disabled = listed.faults.length === 0;
  // Only what has changed is touched, so that the focus stays where it is.
  const lines = new Map([...$("faults").children].map((line) => [line.dataset.id, line]));
  for (const one of listed.faults) {
    let line = lines.get(String(one.id));
    lines.delete(String(one.id));
    if (!line) {
      line = element("li", "", { "data-id": one.id });
      const off = element("button", "Off", { "aria-label": `Switch off ${one.fault.kind}, number ${one.id}` });
      off.addEventListener("click", () => act("DELETE", `faults/${one.id}`));
      line.append(element("span", ""), off);
      $("faults").append(line);
    }
    const text = describe(one);
    if (line.firstChild.textContent !== text) line.firstChild.textContent = text;
  }
  for (const line of lines.values()) line.remove();
}

function showParameters() {
  const chosen = kinds.find((one) => one.kind === $("kind").value);
  for (const label of document.querySelectorAll("[data-parameter]")) {
    label.hidden = !chosen.parameters.includes(label.dataset.parameter);
    for (const field of label.children) field.disabled = label.hidden;
  }
}

async function showRecords() {
  const number = ++asked;
  const type = $("object").value;
  const wanted = $("external-id").value.trim();
  const query = new URLSearchParams({ object_type: type });
  let first = 0;
  if (wanted) {
    query.set("external_id", wanted);
  } else {
    const total = (await ask("GET", `records?${new URLSearchParams({ object_type: type, limit: 1 })}`)).total;
    const end = before === null ? total : Math.min(before, total);
    first = Math.max(0, end - PAGE);
    query.set("after", first);
    query.set("limit", Math.max(1, end - first));
  }
  const page = await ask("GET", `records?${query}`);
  if (number !== asked) return; // a later question has been asked meanwhile
  shownTotal = page.total;
  const columns = Object.keys(objects.find((one) => one.name === type).fields);
  $("columns").replaceChildren(...["Id", ...columns].map((name) => element("th", name, { scope: "col" })));
  $("records").replaceChildren(
    ...page.records.toReversed().map((record) => {
      const row = document.createElement("tr");
      row.append(element("td", record.id), ...columns.map((name) => element("td", shown(record.fields[name]))));
      return row;
    }),
  );
  const last = first + page.records.length;
  $("no-records").hidden = page.records.length > 0;
  $("no-records").textContent = wanted ? "No record has this external id." : "No record has come yet.";
  $("place").textContent = wanted || !last ? "" : `${first + 1} to ${last} of ${page.total}`;
  $("newer").disabled = Boolean(wanted) || last >= page.total;
  $("older").disabled = Boolean(wanted) || first === 0;
}

function shown(value) {
  if (value === undefined || value === null) return "";
  return typeof value === "object" ? Object.values(value).join(", ") : String(value);
}

async function showObjects() {
  objects = (await ask("GET", "objects")).objects;
  for (const list of [$("object"), $("fault-object")]) {
    list.append(...objects.map((one) => element("option", one.name)));
  }
}

async function refresh() {
  if (!objects.length) await showObjects();
  await Promise.all([showCounts(), showFaults(), showRecords()]);
  $("main").hidden = false; // until now it would have said what nobody knows
}

async function act(method, path, body) {
  return trying(async () => {
    await ask(method, path, body);
    await refresh();
  });
}

function read(form) {
  const fault = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled || field.value === "") continue;
    if (field.type === "checkbox") fault[field.name] = field.checked;
    else if (field.type === "number" || field.name === "status") fault[field.name] = Number(field.value);
    else if (field.name === "external_ids") fault[field.name] = field.value.split("\n").map((one) => one.trim()).filter(Boolean);
    else fault[field.name] = field.value;
  }
  return fault;
}

function onSubmit(id, action) {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    action(event.target);
  });
}

function turn(places) {
  const end = Math.min((before ?? shownTotal) + places, shownTotal);
  before = end >= shownTotal ? null : Math.max(end, 1);
  trying(showRecords);
}

onSubmit("switch-on", (form) => act("POST", "faults", read(form)));
onSubmit("rate", (form) => act("PUT", "rate", { calls_per_second: read(form).calls_per_second ?? null }));
onSubmit("find", () => {
  before = null;
  trying(showRecords);
});
onSubmit("unlock", async () => {
  secret = $("secret").value;
  await trying(refresh);
});
$("kind").addEventListener("change", showParameters);
$("object").addEventListener("change", () => {
  before = null;
  trying(showRecords);
});
$("clear").addEventListener("click", () => act("DELETE", "faults"));
$("revoke").addEventListener("click", () => act("DELETE", "tokens"));
$("newer").addEventListener("click", () => turn(PAGE));
$("older").addEventListener("click", () => turn(-PAGE));

(async function keepFresh() {
  if (!document.hidden && $("unlock").hidden) await trying(refresh, true);
  setTimeout(keepFresh, REFRESH_MS);
})();
