"use strict";
// The filter lives in the address, `#task=temporal_order&q=red`, so that a view can be handed on.
const form = document.querySelector("form");
const articles = [...document.querySelectorAll("article")];
const texts = articles.map((article) => article.querySelector(".text").textContent.toLowerCase());

function show() {
  const wanted = Object.fromEntries(new FormData(form));
  const terms = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  articles.forEach((article, index) => {
    const fits = ["topic", "task", "format", "verdict"].every((key) => !wanted[key] || article.dataset[key] === wanted[key])
      && terms.every((term) => texts[index].includes(term));
    article.hidden = !fits;
    shown += fits;
  });
  form.querySelector("output").textContent = `${shown} of ${articles.length} shown`;
}

function read() {
  const address = new URLSearchParams(location.hash.slice(1));
  for (const field of form.elements) if (field.name) field.value = address.get(field.name) ?? "";
  show();
}

form.addEventListener("input", () => {
  const filled = [...new FormData(form)].filter(([, value]) => value);
  history.replaceState(null, "", `#${new URLSearchParams(filled)}`);
  show();
});
form.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", read);
form.hidden = false;
read();
