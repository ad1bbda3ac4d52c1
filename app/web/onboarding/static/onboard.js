// JavaScript adds copy buttons to the onboarding page, moves the status to the top once there is one, and reloads the
// page when the link has ended. The page works without it; htmx updates it.
"use strict";

document.documentElement.classList.add("js");

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea"); // there is no clipboard on plain http
  area.value = text;
  area.className = "offscreen";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("not copied");
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copies]");
  if (!button) return;
  const words = button.firstChild; // the visible label; the rest is for screen readers
  try {
    await copy(document.getElementById(button.dataset.copies).textContent);
    words.data = "Copied";
  } catch {
    words.data = "Copy by hand";
  }
  button.focus();
  setTimeout(() => (words.data = "Copy"), 2000);
});

// Checking a role takes a few seconds, so a form can be sent only once.
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button[data-busy]");
  if (button) {
    button.setAttribute("aria-busy", "true");
    button.textContent = button.dataset.busy;
    setTimeout(() => (button.disabled = true));
  }
});

// When an open page gets its first status, the status moves to the top, as on a page that is loaded now. The visible part
// of the page stays in place, and a focused field keeps the focus.
// What was opened stays open, and its line keeps the focus.
let looked, opened;
const parts = () => [...document.querySelectorAll("#live details")];

document.addEventListener("htmx:beforeSwap", () => {
  const status = document.getElementById("status");
  opened = parts().map((part) => {
    const line = part.firstElementChild;
    return [line.textContent, part.open, line === document.activeElement];
  });
  const focused = document.activeElement;
  const seen = status.getBoundingClientRect().top < innerHeight ? status : document.querySelector("article");
  const element = status.contains(focused) ? focused : seen;
  looked = { element, top: element.getBoundingClientRect().top };
});

document.addEventListener("htmx:afterSettle", () => {
  parts().forEach((part, index) => {
    const [text, open, focused] = opened[index] || [];
    if (part.firstElementChild.textContent !== text) return;
    part.open = open;
    if (focused) part.firstElementChild.focus({ preventScroll: true });
  });
  const status = document.getElementById("status");
  const first = document.querySelector("article");
  if (status === first || !status.querySelector("[data-told]")) return;
  const focused = document.activeElement;
  document.documentElement.classList.add("moving"); // stops the browser from scrolling by itself
  first.before(status);
  scrollBy({ top: looked.element.getBoundingClientRect().top - looked.top, behavior: "instant" });
  if (status.contains(focused)) focused.focus({ preventScroll: true });
  requestAnimationFrame(() => document.documentElement.classList.remove("moving"));
});

document.addEventListener("htmx:responseError", (event) => {
  if ([404, 410].includes(event.detail.xhr.status)) location.reload();
});
