// The search box on every page: suggestions while one types.
import { api, element } from "./api.js";

const input = document.querySelector("#search");
const list = document.querySelector("#suggestions");
const PAUSE_MS = 120;
let timer;
let asked = 0;
let chosen = -1;

function show(suggestions) {
  chosen = -1;
  list.replaceChildren(
    ...suggestions.map(({ text, video_id }, index) =>
      element("li", { role: "option", id: `suggestion-${index}`, "data-id": video_id, onmousedown: () => go(video_id) }, text),
    ),
  );
  list.hidden = suggestions.length === 0;
  input.setAttribute("aria-expanded", String(!list.hidden));
  input.removeAttribute("aria-activedescendant");
}

function go(id) {
  location.href = `/watch/${encodeURIComponent(id)}`;
}

async function suggest() {
  const mine = ++asked;
  const typed = input.value.trim();
  if (!typed) return show([]);
  try {
    const { suggestions } = await api(`/api/videos/suggest?q=${encodeURIComponent(typed)}`);
    if (mine === asked && document.activeElement === input) show(suggestions);
  } catch {
    show([]); // a search still works without suggestions
  }
}

input.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(suggest, PAUSE_MS);
});
input.addEventListener("blur", () => show([]));
input.addEventListener("keydown", (event) => {
  const items = [...list.children];
  if (event.key === "Escape") return show([]);
  if (event.key === "Enter" && chosen >= 0) {
    event.preventDefault();
    return go(items[chosen].dataset.id);
  }
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || items.length === 0) return;
  event.preventDefault();
  chosen = (chosen + step + items.length) % items.length;
  items.forEach((item, index) => item.setAttribute("aria-selected", String(index === chosen)));
  input.setAttribute("aria-activedescendant", items[chosen].id);
});
