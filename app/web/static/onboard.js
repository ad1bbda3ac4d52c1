// What JavaScript adds to the onboarding page: copy buttons, and a reload when the link has ended meanwhile.
// The page is whole without it; live updates are htmx's.
"use strict";

document.documentElement.classList.add("js");

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea"); // plain http has no clipboard
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
  const words = button.firstChild; // the label; what follows is for screen readers
  try {
    await copy(document.getElementById(button.dataset.copies).textContent);
    words.data = "Copied";
  } catch {
    words.data = "Copy by hand";
  }
  button.focus();
  setTimeout(() => (words.data = "Copy"), 2000);
});

// A form is sent once; checking a role takes a few seconds.
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button[data-busy]");
  if (button) {
    button.setAttribute("aria-busy", "true");
    button.textContent = button.dataset.busy;
    setTimeout(() => (button.disabled = true));
  }
});

document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 404) location.reload();
});
