// What the page does beyond links and forms. Every part of HTML comes escaped from the server; texts
// of models are put in as text. Without this file all but previews, live views and Try still works.

const said = document.getElementById("said");
const say = (text) => { said.textContent = text; };

/** Put parts of the page in the place of those with the same id. */
function swap(html) {
  const parts = new DOMParser().parseFromString(html, "text/html").body.children;
  for (const part of [...parts]) {
    const old = part.id && document.getElementById(part.id);
    if (!old) continue;
    const open = [...old.querySelectorAll("details")].map((each) => each.open);
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    const tops = [...old.querySelectorAll("pre.output")].map((each) => [each.scrollTop, each.scrollTop + each.clientHeight >= each.scrollHeight - 4]);
    old.replaceWith(part);
    [...part.querySelectorAll("details")].forEach((each, n) => { if (n in open) each.open = open[n]; });
    [...part.querySelectorAll("pre.output")].forEach((each, n) => {
      if (n in tops) each.scrollTop = tops[n][1] ? each.scrollHeight : tops[n][0];
    });
    if (focused) document.getElementById(focused)?.focus();
  }
}

async function post(url, data) {
  const body = new URLSearchParams(data);
  return fetch(url, { method: "POST", body, redirect: "error" });
}

// --- copying a command -------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  say("Copied.");
});

// --- dropping a file -----------------------------------------------------------------------------

for (const place of document.querySelectorAll("[data-drop]")) {
  const input = place.querySelector("input");
  const bar = place.querySelector("progress");
  const error = place.querySelector("[data-error]");
  const send = (file) => {
    const request = new XMLHttpRequest();
    request.open("PUT", place.dataset.drop + encodeURIComponent(file.name));
    request.upload.onprogress = (event) => { if (event.lengthComputable) bar.value = event.loaded / event.total; };
    request.onload = () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* told below */ }
      if (answer.to) { location.assign(answer.to); return; }
      fail(answer.error || `The file was not taken (${request.status}).`);
    };
    request.onerror = () => fail("The page's server does not answer: is `instil ui` still running?");
    const fail = (text) => {
      bar.hidden = true;
      const told = document.createElement("pre");
      told.className = "problem";
      told.setAttribute("role", "alert");
      told.textContent = text;
      error.replaceChildren(told);
    };
    error.replaceChildren();
    bar.hidden = false;
    request.send(file);
  };
  input.addEventListener("change", () => { if (input.files[0]) send(input.files[0]); });
  for (const name of ["dragover", "dragleave", "drop"]) {
    place.addEventListener(name, (event) => {
      event.preventDefault();
      place.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
    });
  }
}

// --- parts that follow a form --------------------------------------------------------------------

for (const form of document.querySelectorAll("form[data-live]")) {
  let waiting = 0;
  let asked = 0;
  const look = async () => {
    const mine = ++asked;
    form.classList.add("busy");
    try {
      const answer = await post(form.dataset.live, new FormData(form));
      const html = answer.status === 204 ? "" : await answer.text();
      if (mine !== asked) return;
      if (html) swap(html);
      form.classList.remove("busy");
    } catch {
      say("The page's server does not answer.");
    }
  };
  if ("liveSubmit" in form.dataset) {
    form.addEventListener("submit", (event) => { event.preventDefault(); look(); });
    continue;
  }
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(look, 250); });
  if ("liveNow" in form.dataset) look();
  // A tokenizer that is being loaded: look again until its tokens are there.
  const note = () => document.getElementById("note")?.textContent.includes("being loaded");
  const again = async () => { if (note()) { await look(); setTimeout(again, 1500); } };
  if (note()) setTimeout(again, 1500);
}

for (const form of document.querySelectorAll("form[data-submit-on-change]")) {
  form.addEventListener("change", () => form.requestSubmit());
}

for (const part of document.querySelectorAll("[data-load]")) {
  post(part.dataset.load, {}).then((answer) => answer.text()).then(swap, () => say("The page's server does not answer."));
}

// --- live views ----------------------------------------------------------------------------------

for (const part of document.querySelectorAll("[data-events]")) {
  const source = new EventSource(part.dataset.events);
  source.addEventListener("swap", (event) => swap(event.data));
  source.addEventListener("end", () => { source.close(); location.reload(); });
}

for (const part of document.querySelectorAll("[data-wait]")) {
  const look = async () => {
    const state = await fetch(part.dataset.wait).then((answer) => answer.json()).catch(() => ({ running: true }));
    if (state.ready || !state.running) location.reload(); else setTimeout(look, 700);
  };
  setTimeout(look, 700);
}

// --- base beside tuned ---------------------------------------------------------------------------

for (const form of document.querySelectorAll("form[data-ask]")) {
  const choose = form.querySelector("[data-choose]");
  const place = (side) => form.querySelector(`[data-answer=${side}]`);
  const head = (side, text) => { form.querySelector(`[data-head=${side}]`).textContent = text; };
  let round = "";
  const stream = async (side, box) => {
    box.textContent = "";
    const answer = await post(form.dataset.ask, { prompt: form.elements.prompt.value, side, round });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      box.append(value);
    }
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button.main");
    button.disabled = true;
    choose.hidden = true;
    const blind = form.elements.blind.checked;
    round = blind ? (await post(form.dataset.blind, {}).then((answer) => answer.json())).round : "";
    head("a", blind ? "A" : "Base model");
    head("b", blind ? "B" : "Tuned model");
    try {
      await Promise.all([stream(blind ? "a" : "base", place("a")), stream(blind ? "b" : "tuned", place("b"))]);
      choose.hidden = !blind;
      say("Both have answered.");
    } catch {
      say("The page's server does not answer.");
    }
    button.disabled = false;
  });
  choose.addEventListener("click", async (event) => {
    const better = event.target.closest("[data-better]");
    if (!better) return;
    choose.hidden = true;
    const data = { round, better: better.dataset.better, prompt: form.elements.prompt.value };
    const answer = await post(form.dataset.vote, data);
    const text = await answer.text();
    if (answer.ok) swap(text); else say(text);
  });
}
