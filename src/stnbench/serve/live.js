// The live page: takes fragments from the server's events, asks without leaving the page, and counts seconds.
"use strict";

const lost = document.getElementById("connection");
const answer = document.getElementById("answer");

function duration(seconds) {
  if (seconds < 100) return `${Math.max(0, Math.floor(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function tick() {
  for (const time of document.querySelectorAll("time[data-since]")) {
    time.textContent = duration((Date.now() - Date.parse(time.dateTime)) / 1000);
  }
}

function show(name, html) {
  const part = document.getElementById(name);
  if (!part) return;
  const focused = document.activeElement;
  if (part.contains(focused) && focused.matches("input")) return void part.addEventListener("focusout", () => show(name, html), { once: true });
  const open = [...part.querySelectorAll("details")].map((one) => one.open);
  part.innerHTML = html;
  part.querySelectorAll("details").forEach((one, index) => { one.open = open[index] ?? false; });
  tick();
}

const events = new EventSource(document.body.dataset.events);
events.addEventListener("parts", (event) => {
  lost.hidden = true;
  for (const [name, html] of Object.entries(JSON.parse(event.data))) show(name, html);
});
events.addEventListener("alive", () => { lost.hidden = true; });
events.addEventListener("error", () => { lost.hidden = false; });

document.addEventListener("submit", async (event) => {
  const form = event.target;
  event.preventDefault();
  for (const button of form.querySelectorAll("button")) button.disabled = true;
  answer.textContent = "Asked; the sweep answers within seconds.";
  answer.className = "";
  try {
    const reply = await fetch(form.getAttribute("action"), { // form.action is the field of that name
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
    });
    const text = await reply.text();
    const isJson = (reply.headers.get("Content-Type") ?? "").startsWith("application/json");
    answer.textContent = isJson ? JSON.parse(text).outcome : text;
    answer.className = reply.ok ? "" : "refused";
  } catch (error) {
    answer.textContent = `Not asked: ${error.message}`;
    answer.className = "refused";
  }
  for (const button of form.querySelectorAll("button")) button.disabled = false;
});

setInterval(tick, 1000);
tick();
