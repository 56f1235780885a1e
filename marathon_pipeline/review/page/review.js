"use strict";
// One reviewer at a time: `table` is all that the server says to them, `current` the pair before them.
const $ = (selector) => document.querySelector(selector);
const video = $("video"), filter = $("#filter"), reasonsForm = $("#reasons");
const SPEEDS = [0.5, 1, 2, 4, 8];
const MARKS = { open: "·", accept: "✓", reject: "✗", dispute: "!", ruled: "§", full: "–" };
const SAYS = { open: "waits for you", accept: "you accepted it", reject: "you rejected it", dispute: "in dispute",
  ruled: "you adjudicated", full: "others see to it" };
let table = null, current = "", reviewer = localStorage.getItem("reviewer") ?? "";
let span = 0, stopAt = null, speed = 1, last = []; // `last`: what was said in this window, for undo

function make(tag, text = "", kind = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = kind;
  return element;
}

function clock(seconds) {
  const whole = Math.round(seconds), pad = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

async function ask(path, body) {
  const sent = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, sent);
  } catch {
    throw new Error("The server does not answer. Is `marathon review` still running? Nothing was kept of this.");
  }
  if (answer.ok) return answer.json();
  const text = await answer.text();
  let said = text;
  try { said = JSON.parse(text).detail; } catch { /* plain text */ }
  throw new Error(typeof said === "string" ? said : "The server did not understand this.");
}

function complain(error) {
  $("#problem").textContent = error ? error.message : "";
  $("#problem").hidden = !error;
}

const item = () => table?.items.find((each) => each.qa_id === current);

function fits(each) {
  const wanted = Object.fromEntries(new FormData(filter));
  const text = [each.question, each.answer, ...Object.values(each.options)].join(" ").toLowerCase();
  const state = { judged: ["accept", "reject", "ruled"], dispute: ["dispute"], open: ["open"] }[wanted.state];
  return (!wanted.task || each.task === wanted.task) && (!state || state.includes(each.state))
    && wanted.q.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function take(found) {
  table = found;
  const p = table.progress;
  $("#progress").textContent = `${p.mine} judged by you, ${p.open} wait for you; ${p.both} of ${p.dealt} judged by two`;
  showGates();
  showList();
}

function showGates() {
  $("#gates").replaceChildren(...table.gates.map((gate) => {
    const row = make("li"), idle = gate.state === "not judged";
    const marks = { holds: ["✓ holds", "ok"], broken: ["✗ broken", "broken"], "not judged": ["not judged", "idle"] };
    row.append(make("b", gate.label.replaceAll("_", " ")), make("span", ...marks[gate.state]));
    const from = idle ? `; counts from ${gate.fewest} judged pairs on, ${gate.counted} so far` : ` of ${gate.counted}`;
    row.append(make("span", `${gate.found}, wanted ${gate.bound}${from}`, "says"));
    return row;
  }));
  if (!table.reviewed) $("#gates").append(make("li", "Shown once nothing waits for you: until then you judge blind."));
  else if (!table.gates.length) $("#gates").append(make("li", "No gate of this dataset asks for reviews (docs/gates.md)."));
  $("#agreement").textContent = (table.reviewed?.agreement ?? []).map((pair) => `${pair.reviewers.join(" and ")} agree on `
    + `${pair.agreed} of ${pair.judged}${pair.kappa === null ? "" : `, kappa ${pair.kappa.toFixed(2)}`}.`).join(" ");
}

function showList() {
  const shown = table.items.filter(fits);
  $("#shown").textContent = `${shown.length} of ${table.items.length} pairs`;
  $("#list").replaceChildren(...shown.map((each) => {
    const button = make("button", "", each.state);
    button.type = "button";
    button.setAttribute("aria-current", each.qa_id === current);
    button.append(make("span", MARKS[each.state], "mark"), make("span", `${each.name}: ${each.question}`));
    button.title = SAYS[each.state];
    button.addEventListener("click", () => open(each.qa_id));
    const row = make("li");
    row.append(button);
    return row;
  }));
  const none = !item() || !shown.length && !current;
  $("article").hidden = none;
  $("#empty").hidden = !none;
  if (none) $("#empty").textContent = table.progress.open ? "Nothing here waits for you: change the filter."
    : "You have judged all that was dealt to you. Thank you; close the page, or look over the list.";
  if (!none) showState();
}

function showState() {
  const each = item();
  $(".over .state").textContent = SAYS[each.state];
  $("[data-do=accept]").disabled = $("[data-do=reject]").disabled = each.state === "full";
  $("[data-do=undo]").disabled = !last.length && !["accept", "reject", "ruled"].includes(each.state);
  const opinions = $(".opinions");
  opinions.hidden = !each.opinions.length;
  opinions.replaceChildren(...each.opinions.map((one) => make("li", `${one.reviewer}: ${one.verdict}`
    + `${one.reason ? ` (${one.reason.replaceAll("_", " ")})` : ""}${one.note ? ` – ${one.note}` : ""}`)));
  if (each.opinions.length) opinions.append(make("li", each.opinions.some((one) => one.reviewer === reviewer)
    ? "You two disagree: talk it over. It is settled once both of you say the same here, or a third person decides."
    : "Reviewers disagree: your word settles it."));
}

function open(id) {
  current = id;
  const each = item();
  if (!each) return showList();
  span = 0;
  complain();
  turnReasons(false);
  $(".over .task").textContent = each.name;
  $(".over .format").textContent = each.format === "open" ? "open-ended" : "multiple choice";
  $(".over .place").textContent = `${table.items.indexOf(each) + 1} of ${table.items.length}`;
  $(".asks").textContent = `Asked for: ${each.asks}`;
  $(".question").textContent = each.question;
  $(".options").replaceChildren(...Object.entries(each.options).map(([letter, text]) => {
    const row = make("li", "", letter === each.letter ? "right" : "");
    row.append(make("b", letter), make("span", text));
    return row;
  }));
  $(".answer").textContent = each.answer;
  $(".answer").hidden = each.format !== "open";
  showVideo(each);
  showList();
  history.replaceState(null, "", `#${id}`);
  const list = $("#list"), row = list.querySelector("[aria-current=true]"); // the page itself stays where it is
  if (row) list.scrollTop = row.offsetTop - list.offsetTop - list.clientHeight / 3;
}

function showVideo(each) {
  const source = `/media/${encodeURIComponent(each.video_id)}.mp4`;
  stopAt = null;
  if (!video.currentSrc.endsWith(source) || video.error) {
    video.hidden = false;
    $(".gone").hidden = true;
    video.src = source;
  } else video.pause();
  const length = each.seconds || 1;
  const bars = each.evidence.map((stretch) => {
    const bar = make("i");
    bar.style.left = `${100 * stretch.start / length}%`;
    bar.style.width = `${100 * (stretch.end - stretch.start) / length}%`;
    return bar;
  });
  $(".track").replaceChildren(...bars, make("i", "", "now"));
  const buttons = each.evidence.map((stretch, index) => {
    const button = make("button", `▶ ${clock(stretch.start)}–${clock(stretch.end)}`);
    button.type = "button";
    button.addEventListener("click", () => play(index));
    return button;
  });
  if (buttons.length) buttons[0].append(" ", make("kbd", "Space"));
  $(".spans").replaceChildren(...buttons, make("span", "", "speed"));
  turn(0);
  seek();
}

function seek() {
  const stretch = item()?.evidence[span];
  if (stretch) video.currentTime = Math.max(0, stretch.start);
  [...$(".spans").querySelectorAll("button")].forEach((b, index) => b.setAttribute("aria-pressed", index === span));
}

function play(index = span) {
  const stretch = item()?.evidence[index];
  if (!stretch) return video.paused ? video.play() : video.pause();
  if (index === span && !video.paused) return video.pause();
  const within = index === span && video.currentTime >= stretch.start && video.currentTime < stretch.end - 0.5;
  span = index;
  if (!within) seek();
  stopAt = stretch.end;
  return video.play();
}

function turn(by) {
  speed = Math.min(SPEEDS.length - 1, Math.max(0, speed + by));
  video.playbackRate = SPEEDS[speed];
  $(".speed").textContent = `${SPEEDS[speed]} ×`;
}

function turnReasons(shown) {
  reasonsForm.hidden = !shown;
  $("[data-do=reject]").setAttribute("aria-expanded", shown);
  if (shown) reasonsForm.scrollIntoView({ block: "nearest" });
  else $("#note").value = "";
}

async function say(verdict, reason = "") {
  const each = item();
  if (!each || each.state === "full") return;
  const note = reason ? $("#note").value : "";
  if (reason === "other" && !note.trim()) {
    complain(new Error("Say in words what is wrong, then choose it again."));
    return $("#note").focus();
  }
  try {
    take(await ask("/api/judgements", { reviewer, qa_id: each.qa_id, shown: each.shown, verdict, reason, note }));
  } catch (error) {
    return complain(error);
  }
  if (verdict === "withdrawn") return open(each.qa_id);
  last.push(each.qa_id);
  step(1, ["open", "dispute"]);
}

function undo() {
  if (last.length) open(last.pop());
  const each = item();
  if (each && ["accept", "reject", "ruled"].includes(each.state)) return say("withdrawn");
}

function step(by, states) {
  const shown = table.items.filter((each) => each.qa_id === current || fits(each) && (!states || states.includes(each.state)));
  const at = shown.findIndex((each) => each.qa_id === current);
  const next = shown[(at + by + shown.length) % shown.length];
  if (next && next.qa_id !== current) open(next.qa_id);
  else if (states) { current = ""; video.pause(); showList(); }
}

const acts = {
  accept: () => say("accept"), reject: () => turnReasons(reasonsForm.hidden), undo,
  next: () => step(1), back: () => step(-1),
  leave: () => { localStorage.removeItem("reviewer"); location.hash = ""; location.reload(); },
};

document.addEventListener("click", (event) => acts[event.target.closest("[data-do]")?.dataset.do]?.());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !table) return;
  const field = event.target.closest("input, textarea, select");
  if (event.key === "Escape") { field?.blur(); return turnReasons(false); }
  if (field) return;
  const reason = !reasonsForm.hidden && Object.keys(about.reasons)[Number(event.key) - 1];
  const keys = {
    a: acts.accept, r: acts.reject, u: undo, j: acts.next, k: acts.back, ArrowRight: acts.next, ArrowLeft: acts.back,
    " ": () => play(), e: () => play((span + 1) % (item()?.evidence.length || 1)), ",": () => turn(-1), ".": () => turn(1),
    "/": () => filter.elements.q.focus(), n: () => !reasonsForm.hidden && $("#note").focus(),
  };
  const act = reason ? () => say("reject", reason) : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

video.addEventListener("timeupdate", () => {
  const now = $(".track .now"), each = item();
  if (now && each) now.style.left = `${100 * video.currentTime / (each.seconds || 1)}%`;
  if (stopAt !== null && video.currentTime >= stopAt) { video.pause(); stopAt = null; }
});
video.addEventListener("loadedmetadata", () => { turn(0); seek(); });
video.addEventListener("error", () => { video.hidden = true; $(".gone").hidden = false; });

filter.addEventListener("submit", (event) => event.preventDefault());
filter.addEventListener("input", () => {
  const shown = table.items.filter(fits);
  if (shown.length && !shown.some((each) => each.qa_id === current)) open(shown[0].qa_id);
  else showList();
});
reasonsForm.addEventListener("submit", (event) => event.preventDefault());

async function begin() {
  $("#sign-in").hidden = Boolean(reviewer);
  $("#who").hidden = $("main").hidden = !reviewer;
  if (!reviewer) return $("#name").focus();
  $("#who b").textContent = reviewer;
  take(await ask(`/api/table?reviewer=${encodeURIComponent(reviewer)}`));
  const names = new Map(table.items.map((each) => [each.task, each.name]));
  filter.elements.task.append(...[...names].sort((a, b) => a[1].localeCompare(b[1])).map(([id, name]) => new Option(name, id)));
  const wanted = table.items.find((each) => each.qa_id === location.hash.slice(1))
    ?? table.items.find((each) => each.state === "open") ?? table.items.find((each) => each.state === "dispute");
  open(wanted?.qa_id ?? "");
}

$("#sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  reviewer = $("#name").value.trim();
  if (!reviewer) return;
  localStorage.setItem("reviewer", reviewer);
  begin();
});

setInterval(async () => { // others judge meanwhile
  if (!table || document.hidden) return;
  try { take(await ask(`/api/table?reviewer=${encodeURIComponent(reviewer)}`)); } catch { /* said when it matters */ }
}, 10_000);

let about = { reasons: {} };
(async () => {
  about = await ask("/api/about");
  $("#dataset").textContent = about.title;
  document.title = `Review ${about.title}`;
  $(".reasons").replaceChildren(...Object.entries(about.reasons).map(([reason, says], index) => {
    const button = make("button", "");
    button.type = "button";
    button.append(make("kbd", String(index + 1)), ` ${says}`);
    button.addEventListener("click", () => say("reject", reason));
    return button;
  }));
  await begin();
})();
