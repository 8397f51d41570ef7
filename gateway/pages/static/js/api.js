// The HTTP contract as the pages use it, and the few pieces that every page draws with.

export class Problem extends Error {
  constructor(status, document, retryAfterSeconds) {
    super(document.detail || document.title || `the server answered ${status}`);
    this.status = status;
    this.document = document;
    this.errors = document.errors || [];
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

export async function api(path, { method = "GET", json, body, headers = {}, signal, keepalive } = {}) {
  if (json !== undefined) {
    body = JSON.stringify(json);
    headers = { ...headers, "Content-Type": "application/json" };
  }
  const response = await fetch(path, { method, body, headers, signal, keepalive });
  const isJson = (response.headers.get("Content-Type") || "").includes("json");
  const answer = isJson ? await response.json() : null;
  if (!response.ok) throw new Problem(response.status, answer || {}, Number(response.headers.get("Retry-After")) || 0);
  // Of a write: a read with `?after=` this token sees it.
  const position = response.headers.get("X-Event-Position");
  return position && answer ? { ...answer, position } : answer;
}

// A position that is saved on leaving may still be on its way when the next page asks: that page asks until it is there.

const SAVED = "et.saved";
const UNDER_WAY_MS = 5_000;
const ASK_AGAIN_MS = 150;

export const noteSaved = (id, at) => localStorage.setItem(SAVED, JSON.stringify({ id, at: at.getTime() }));

// `updatedAt(answer, id)` is the moment that the answer knows of the film `id`.
export async function withSaved(ask, updatedAt) {
  const saved = JSON.parse(localStorage.getItem(SAVED) || "null");
  for (;;) {
    const answer = await ask();
    if (!saved || Date.now() > saved.at + UNDER_WAY_MS || new Date(updatedAt(answer, saved.id)) >= saved.at) return answer;
    await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
  }
}

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function toast(text, isWrong = false) {
  const shown = element("div", { class: isWrong ? "toast wrong" : "toast", role: isWrong ? "alert" : null }, text);
  document.querySelector("#toasts").append(shown);
  setTimeout(() => shown.remove(), 6000);
}

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const padded = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${padded(minutes)}:${padded(rest)}` : `${minutes}:${padded(rest)}`;
}

export const counted = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

export const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: bytes < 1e7 ? 1 : 0 })} MB`;

const KINDS = { movie: "Movie", episode: "Episode", short: "Short", documentary: "Documentary" };
const STATES = { PENDING: "Waiting", PROCESSING: "Processing", FAILED: "Failed" };

export function facts(video) {
  const episode = video.show_title && `${video.show_title} · S${video.season_number} E${video.episode_number}`;
  return [episode || KINDS[video.content_type], video.release_year, video.genre].filter(Boolean).join(" · ");
}

// `title` may hold marked, escaped HTML from the search's highlight.
export function card(video, { note, percent, rank, markedTitle } = {}) {
  const title = element("strong", {}, video.title || "Untitled");
  if (markedTitle) title.innerHTML = markedTitle;
  const picture = video.thumbnail_url
    ? element("img", { src: video.thumbnail_url, alt: "", loading: "lazy" })
    : element("span", { class: "initial", "aria-hidden": "true" }, (video.title || "?").slice(0, 1).toUpperCase());
  return element(
    "a",
    { class: "card", href: `/watch/${encodeURIComponent(video.id)}`, "data-rank": rank },
    element(
      "div",
      { class: "art" },
      picture,
      STATES[video.status] && element("span", { class: `chip state ${video.status.toLowerCase()}` }, STATES[video.status]),
      video.duration_seconds && element("span", { class: "chip" }, clock(video.duration_seconds)),
      percent !== undefined && percent !== null && seen(percent),
    ),
    element("div", { class: "text" }, title, element("small", {}, note || facts(video))),
  );
}

function seen(percent) {
  const bar = element("i");
  bar.style.width = `${percent}%`;
  return element("div", { class: "seen", role: "img", "aria-label": `${Math.round(percent)} percent watched` }, bar);
}

export function tabs(container, choose) {
  const buttons = [...container.querySelectorAll("button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-selected", String(other === button));
      choose(button.dataset);
    });
  }
}
