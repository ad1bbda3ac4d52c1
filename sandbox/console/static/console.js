"use strict";

// AWS's quick-create links carry everything after the #, which a server never sees. Hand it over as a plain query.
function openLink(place) {
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

// The answer, or null after showing why there is none.
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

// CloudFormation's patterns must match the whole value. One that the browser can't read is left to the sandbox.
function checkPattern(input) {
  let pattern;
  try {
    pattern = new RegExp(`^(?:${input.dataset.allowedPattern})$`, "u");
  } catch {
    return;
  }
  const fits = !input.dataset.allowedPattern || pattern.test(input.value);
  const wanted = input.dataset.constraint || `must match pattern ${input.dataset.allowedPattern}`;
  input.setCustomValidity(fits ? "" : `Parameter ${input.name} failed to satisfy constraint: ${wanted}`);
}

function prepareForm(form) {
  const account = document.getElementById("account");
  const other = document.getElementById("other-account");
  const tick = document.getElementById("acknowledge");
  const submit = form.querySelector("[type=submit]");
  const parameters = [...form.querySelectorAll("[data-parameter]")];

  const showOther = () => {
    const wanted = account.value === "";
    document.getElementById("other-account-field").hidden = !wanted;
    other.required = wanted;
    other.disabled = !wanted;
  };
  const allow = () => {
    submit.disabled = tick !== null && !tick.checked;
  };
  account.addEventListener("change", showOther);
  tick?.addEventListener("change", allow);
  for (const input of parameters) {
    if (!("allowedPattern" in input.dataset)) continue;
    input.addEventListener("input", () => checkPattern(input));
    checkPattern(input);
  }
  // A browser that comes back to this page fills the form in again, without saying so.
  addEventListener("pageshow", () => {
    showOther();
    allow();
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    submit.textContent = "Creating…";
    document.getElementById("failure").hidden = true;
    const created = await call("POST", form.dataset.api, {
      account: account.value || other.value,
      region: form.dataset.region,
      template_url: form.dataset.templateUrl,
      stack_name: document.getElementById("stack-name").value,
      parameters: Object.fromEntries(parameters.map((input) => [input.name, input.value])),
      capabilities: tick?.checked ? [tick.value] : [],
    });
    submit.textContent = "Create stack";
    allow();
    if (created) location.assign(created.url);
  });
}

// The server draws the stack; this fetches its drawing again until the stack has come to rest.
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
    // The clipboard is only for secure origins, such as localhost. Elsewhere the text is selected, ready to be copied.
    getSelection().selectAllChildren(text);
  }
}

document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-delete], [data-copy]");
  if (!button) return;
  if ("delete" in button.dataset) deleteStack(button);
  else copy(button);
});

const link = document.querySelector("[data-open-link]");
if (link) {
  openLink(link);
  addEventListener("hashchange", () => openLink(link));
}
const form = document.getElementById("create");
if (form) prepareForm(form);
follow();
