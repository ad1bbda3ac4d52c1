"use strict";

// AWS's quick-create links carry everything after the #, which a server never sees. Pass it on as a query.
function openLink(place) {
  if (location.hash.startsWith("#/stacks?")) return location.replace(place.dataset.stacks);
  const asked = /^#\/stacks\/(?:create\/review|quickcreate)\?(.*)$/s.exec(location.hash);
  if (!asked) {
    place.hidden = true;
    document.getElementById("no-link").hidden = false;
    return;
  }
  const query = new URLSearchParams(asked[1]);
  query.set("region", new URLSearchParams(location.search).get("region") || "us-east-1");
  location.replace(`${place.dataset.openLink}?${query}`);
}

function showFailure({ code, message }) {
  const failure = document.getElementById("failure");
  const heading = document.createElement("strong");
  heading.textContent = code;
  failure.replaceChildren(heading, " ", message);
  failure.hidden = false;
  failure.scrollIntoView({ block: "nearest" });
}

// Returns the answer, or null after showing the error.
async function call(method, url, body) {
  try {
    const response = await fetch(url, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (response.ok) return answer;
    showFailure(answer);
  } catch {
    showFailure({ code: "SandboxUnavailable", message: "The sandbox did not answer. Is it still running?" });
  }
  return null;
}

// CloudFormation's patterns must match the whole value, or each member of a list. The sandbox checks patterns
// that the browser can't.
function checkPattern(input) {
  let pattern;
  try {
    pattern = new RegExp(`^(?:${input.dataset.allowedPattern})$`, "u");
  } catch {
    return;
  }
  const values = "list" in input.dataset ? input.value.split(",").map((value) => value.trim()) : [input.value];
  const fits = !input.dataset.allowedPattern || values.every((value) => pattern.test(value));
  const wanted = input.dataset.constraint || `must match pattern ${input.dataset.allowedPattern}`;
  input.setCustomValidity(fits ? "" : `Parameter ${input.name} failed to satisfy constraint: ${wanted}`);
}

// Shared by the pages that create and update a stack. `send` makes the call with the user's choices.
function prepareForm(form, { busy, prepare = () => {}, send }) {
  const tick = document.getElementById("acknowledge");
  const submit = form.querySelector("[type=submit]");
  const parameters = [...form.querySelectorAll("[data-parameter]")];
  const rest = submit.textContent;

  const allow = () => {
    submit.disabled = tick !== null && !tick.checked;
  };
  tick?.addEventListener("change", allow);
  for (const input of parameters) {
    if (!("allowedPattern" in input.dataset)) continue;
    input.addEventListener("input", () => checkPattern(input));
    checkPattern(input);
  }
  // A browser that comes back to this page fills in the form without an event.
  addEventListener("pageshow", () => {
    prepare();
    allow();
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    submit.textContent = busy;
    document.getElementById("failure").hidden = true;
    const answer = await send({
      region: form.dataset.region,
      // The value of a NoEcho parameter is not shown. Left empty on the update page, it stays as it is.
      parameters: Object.fromEntries(
        parameters.filter((input) => form.id === "create" || input.type !== "password" || input.value)
          .map((input) => [input.name, input.value]),
      ),
      capabilities: tick?.checked ? [tick.value] : [],
    });
    submit.textContent = rest;
    allow();
    if (answer) location.assign(answer.url);
  });
}

function prepareCreate(form) {
  const account = document.getElementById("account");
  const other = document.getElementById("other-account");
  const showOther = () => {
    const wanted = account.value === "";
    document.getElementById("other-account-field").hidden = !wanted;
    other.required = wanted;
    other.disabled = !wanted;
  };
  account.addEventListener("change", showOther);
  prepareForm(form, {
    busy: "Creating…",
    prepare: showOther,
    send: (chosen) => call("POST", form.dataset.api, {
      ...chosen,
      account: account.value || other.value,
      template_url: form.dataset.templateUrl,
      stack_name: document.getElementById("stack-name").value,
      without_external_id: document.getElementById("without-external-id")?.checked ?? false,
    }),
  });
}

function prepareUpdate(form) {
  const { account, api, stack, templateUrl } = form.dataset;
  const template = templateUrl ? { template_url: templateUrl } : {};
  prepareForm(form, { busy: "Updating…", send: (chosen) => call("PUT", api, { ...chosen, ...template, account, stack }) });
}

async function saveTrust(form) {
  const { account, region, role, trust } = form.dataset;
  const saved = form.querySelector("[data-saved]");
  saved.textContent = "";
  document.getElementById("failure").hidden = true;
  const answer = await call("PUT", trust, { account, region, role_name: role, policy: form.elements.policy.value });
  if (answer) saved.textContent = "Saved.";
}

// The server renders the stack; this fetches it again while an operation is in progress.
async function follow() {
  while (document.getElementById("stack")?.dataset.busy === "true") {
    await new Promise((resolve) => setTimeout(resolve, 700));
    await redraw();
  }
}

async function redraw() {
  try {
    const response = await fetch(location.href);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.getElementById("stack");
    if (fresh) document.getElementById("stack").replaceWith(fresh);
    else location.reload();
  } catch {
    showFailure({ code: "SandboxUnavailable", message: "The sandbox did not answer. Trying again." });
  }
}

async function deleteStack({ dataset }) {
  if (!confirm(`Delete the stack ${dataset.name} and all its resources?`)) return;
  const { account, region, stack } = dataset;
  const answer = await call("DELETE", dataset.delete, { account, region, stack });
  if (!answer) return;
  if ("stay" in dataset) {
    await redraw();
    follow();
  } else {
    location.reload();
  }
}

async function copy(button) {
  const text = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } catch {
    // Only secure origins, such as localhost, have the clipboard. Elsewhere the text is selected, ready to be copied.
    getSelection().selectAllChildren(text);
  }
}

// A click adds a unit of the organization to the parameter's list, or removes it.
function toggleUnit(button) {
  const { unit, unitOf } = button.dataset;
  const input = document.getElementById(unitOf);
  const chosen = new Set(input.value.split(",").map((value) => value.trim()).filter(Boolean));
  if (!chosen.delete(unit)) chosen.add(unit);
  input.value = [...chosen].join(",");
  button.setAttribute("aria-pressed", chosen.has(unit));
  input.dispatchEvent(new Event("input"));
}

document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-delete], [data-copy], [data-unit]");
  if (!button) return;
  if ("delete" in button.dataset) deleteStack(button);
  else if ("unit" in button.dataset) toggleUnit(button);
  else copy(button);
});

const link = document.querySelector("[data-open-link]");
if (link) {
  openLink(link);
  addEventListener("hashchange", () => openLink(link));
}
document.addEventListener("submit", (event) => {
  if (!("trust" in event.target.dataset)) return;
  event.preventDefault();
  saveTrust(event.target);
});

const creation = document.getElementById("create");
if (creation) prepareCreate(creation);
const update = document.getElementById("update");
if (update) prepareUpdate(update);
follow();
