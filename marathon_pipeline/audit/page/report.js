"use strict";
// Filter and open pair live in the address, `#task=temporal_order&q=red&pair=...`, so that a view can be handed on.
const form = document.querySelector("form");
const articles = [...document.querySelectorAll("article")];
const texts = articles.map((article) => [".question", ".text"].map((part) => article.querySelector(part).textContent).join(" ").toLowerCase());
const address = () => new URLSearchParams(location.hash.slice(1));

function show() {
  const { q, ...wanted } = Object.fromEntries(new FormData(form));
  const terms = q.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  articles.forEach((article, index) => {
    const fits = Object.entries(wanted).every(([key, value]) => !value || holds(article.dataset[key], key, value))
      && terms.every((term) => texts[index].includes(term));
    article.hidden = !fits;
    shown += fits;
  });
  form.querySelector("output").textContent = `${shown} of ${articles.length} shown`;
}

function holds(found, key, value) {
  return found === value || ((key === "kind" || key === "reason") && found.split(" ").includes(value));
}

function read() {
  if (location.hash && !location.hash.includes("=")) return;  // a part of the page
  const wanted = address();
  for (const field of form.elements) if (field.name) field.value = wanted.get(field.name) ?? "";
  show();
  const article = wanted.has("pair") && document.getElementById(`pair-${wanted.get("pair")}`);
  if (article) {
    article.hidden = false;
    article.querySelector("details").open = true;
    article.scrollIntoView();
  } else if (location.hash) {
    document.getElementById("pairs").scrollIntoView();
  }
}

function write(pair) {
  const filled = [...new FormData(form)].filter(([, value]) => value);
  if (pair) filled.push(["pair", pair]);
  history.replaceState(null, "", `#${new URLSearchParams(filled)}`);
}

form.addEventListener("input", () => {
  write();
  show();
});
form.addEventListener("submit", (event) => event.preventDefault());
for (const item of document.querySelectorAll("details[data-pair]")) {
  item.addEventListener("toggle", () => {
    if (item.open) write(item.dataset.pair);
    else if (address().get("pair") === item.dataset.pair) write();
  });
}
window.addEventListener("hashchange", read);
form.hidden = false;
read();
