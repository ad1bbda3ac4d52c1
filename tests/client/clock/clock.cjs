// Node.js loads this when it starts in a worker of ours (NODE_OPTIONS): as sitecustomize.py does for Python.
const fs = require("node:fs");

const folder = process.env.TEST_CLOCK;
const Real = Date;
let offset = wanted();

function wanted() {
  return Number(fs.readFileSync(`${folder}/offset`, "utf8"));
}

function now() {
  return Real.now() + offset * 1000;
}

globalThis.Date = new Proxy(Real, {
  construct: (real, given, target) => Reflect.construct(real, given.length ? given : [now()], target),
  get: (real, name) => (name === "now" ? now : Reflect.get(real, name)),
});

setInterval(() => {
  const next = wanted();
  if (next === offset) return;
  offset = next;
  fs.writeFileSync(`${folder}/${process.pid}.new`, fs.readFileSync(`${folder}/offset`));
  fs.renameSync(`${folder}/${process.pid}.new`, `${folder}/seen`);
}, 10).unref();
