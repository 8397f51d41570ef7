// The player: plays what the film's status allows, remembers where the viewer is, offers to continue, counts its view once.
import { api, card, clock, counted, noteSaved, toast, withSaved } from "./api.js";

const SAVE_EVERY_MS = 10_000;
const VIEW_AFTER_SECONDS = 3; // of playing: who opens a page has not watched yet
const QUEUE = "et.views";
const RETRY_MS = 5_000;

const page = document.querySelector("#watch");
const { id } = page.dataset;
const path = `/api/videos/${encodeURIComponent(id)}`;
const video = page.querySelector("video");
const controller = page.querySelector("media-controller");
const offer = page.querySelector("#offer");
const waiting = page.querySelector("#waiting");
const playback = uuid7();

// A UUIDv7 (RFC 9562): its first 48 bits are the time, from which the server takes when the view occurred.
function uuid7() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const now = BigInt(Date.now());
  for (let i = 0; i < 6; i++) bytes[i] = Number((now >> BigInt(8 * (5 - i))) & 0xffn);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

// Views wait here until the server has them, over reloads; sent again with its id, each counts once.

const queued = () => JSON.parse(localStorage.getItem(QUEUE) || "[]");

async function sendViews() {
  for (const view of queued()) {
    try {
      const { position } = await api(`/api/videos/${encodeURIComponent(view.video)}/views`, {
        method: "POST",
        json: view.body,
        keepalive: true,
      });
      if (view.video === id) showViews(position);
    } catch (problem) {
      const isRefused = problem.status >= 400 && problem.status < 500;
      if (!isRefused) return setTimeout(sendViews, RETRY_MS);
    }
    localStorage.setItem(QUEUE, JSON.stringify(queued().filter((other) => other.body.view_id !== view.body.view_id)));
  }
}

function countView() {
  const view = { video: id, body: { view_id: playback, session_id: playback, watched_seconds: Math.round(played) } };
  localStorage.setItem(QUEUE, JSON.stringify([...queued(), view]));
  sendViews();
}

async function showViews(after) {
  const query = after ? `?after=${encodeURIComponent(after)}` : "";
  const { total_views } = await api(`/api/analytics/videos/${encodeURIComponent(id)}/stats${query}`).catch(() => ({}));
  if (total_views !== undefined) page.querySelector(".views").textContent = counted(total_views, "view", "views");
}

// Positions

let savedAt = null;
let played = 0;
let lastTime = null;
let isCounted = false;

function save(state, keepalive = false) {
  const duration = video.duration;
  if (!Number.isFinite(duration) || !hasPlayed()) return;
  const position = Math.min(video.currentTime, duration);
  if (state !== "playing" && position === savedAt) return;
  savedAt = position;
  const now = new Date();
  noteSaved(id, now);
  const body = { position_seconds: position, duration_seconds: duration, session_id: playback, state, occurred_at: now.toISOString() };
  // What is lost here comes with the next save, ten seconds later.
  api(`${path}/position`, { method: "PUT", json: body, keepalive }).catch(() => {});
}

const hasPlayed = () => video.played.length > 0;

video.addEventListener("timeupdate", () => {
  if (video.paused) return;
  const step = lastTime === null ? 0 : video.currentTime - lastTime;
  lastTime = video.currentTime;
  if (step > 0 && step < 2) played += step;
  const enough = Math.min(VIEW_AFTER_SECONDS, (video.duration || VIEW_AFTER_SECONDS) / 2);
  if (!isCounted && played >= enough) {
    isCounted = true;
    countView();
  }
});
video.addEventListener("seeking", () => (lastTime = null));
video.addEventListener("pause", () => save(video.ended ? "stopped" : "paused"));
video.addEventListener("ended", () => save("stopped"));
setInterval(() => !video.paused && save("playing"), SAVE_EVERY_MS);
addEventListener("pagehide", () => save("stopped", true));
document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && save(video.paused ? "paused" : "playing", true));

async function offerToContinue() {
  const { resume, position_seconds } = await withSaved(
    () => api(`${path}/position`).catch(() => ({})),
    (answer, saved) => (saved === id ? answer.updated_at : Date.now()),
  );
  if (!resume || hasPlayed()) return;
  offer.querySelector("b").textContent = clock(position_seconds);
  offer.hidden = false;
  offer.querySelector(".continue").addEventListener("click", () => {
    offer.hidden = true;
    video.currentTime = position_seconds;
    play();
  });
  offer.querySelector(".again").addEventListener("click", () => {
    offer.hidden = true;
    video.currentTime = 0;
    play();
  });
  offer.querySelector(".continue").focus();
  video.addEventListener("playing", () => (offer.hidden = true), { once: true });
}

function play() {
  video.play().catch(() => {}); // a browser may want a click first; the play button is there
}

// Playing

async function start(address) {
  controller.hidden = false;
  waiting.hidden = true;
  const { default: Hls } = await import(page.dataset.vendor);
  if (Hls.isSupported()) {
    const hls = new Hls({ startPosition: 0, capLevelToPlayerSize: true, backBufferLength: 60 });
    hls.on(Hls.Events.MANIFEST_PARSED, () => offerQualities(hls, Hls));
    hls.on(Hls.Events.ERROR, (_, error) => {
      if (!error.fatal) return;
      if (error.type === Hls.ErrorTypes.MEDIA_ERROR) hls.recoverMediaError();
      else if (error.type === Hls.ErrorTypes.NETWORK_ERROR) setTimeout(() => hls.startLoad(), 2000);
      else toast("This film cannot be played here.", true);
    });
    hls.loadSource(address);
    hls.attachMedia(video);
    window.hls = hls;
  } else if (video.canPlayType("application/vnd.apple.mpegurl")) {
    video.src = address;
    page.querySelector(".quality").hidden = true;
  } else {
    toast("This browser plays no HLS.", true);
    return;
  }
  video.addEventListener("loadedmetadata", () => {
    const length = page.querySelector(".length");
    length.textContent = clock(video.duration);
    length.hidden = false;
  });
  await offerToContinue();
  if (offer.hidden) play();
}

function offerQualities(hls, Hls) {
  const button = page.querySelector("#quality");
  const menu = page.querySelector("#qualities");
  const short = (level) => `${Math.min(level.width, level.height)}p`;
  const choices = [[-1, "Auto"], ...hls.levels.map((level, index) => [index, level.name || short(level)]).reverse()];
  const items = choices.map(([level, name]) => {
    const choice = document.createElement("button");
    Object.assign(choice, { type: "button", textContent: name, onclick: () => choose(level) });
    choice.setAttribute("role", "menuitemradio");
    choice.dataset.level = level;
    const item = document.createElement("li");
    item.setAttribute("role", "none");
    item.append(choice);
    return item;
  });
  menu.replaceChildren(...items);

  function choose(level) {
    hls.nextLevel = level;
    open(false);
    draw();
    button.focus();
  }
  function draw() {
    const isAuto = hls.autoLevelEnabled;
    const current = hls.levels[hls.currentLevel];
    const manual = choices.find(([level]) => level === (isAuto ? -1 : hls.loadLevel))?.[1];
    button.textContent = isAuto && current ? `Auto · ${current.name || short(current)}` : manual || "Auto";
    for (const choice of menu.querySelectorAll("button")) {
      choice.setAttribute("aria-checked", String(Number(choice.dataset.level) === (isAuto ? -1 : hls.loadLevel)));
    }
  }
  function open(isOpen) {
    menu.hidden = !isOpen;
    button.setAttribute("aria-expanded", String(isOpen));
    controller.setAttribute("autohide", isOpen ? "-1" : "2"); // an open menu does not fade away under its reader
    if (isOpen) menu.querySelector("[aria-checked=true]")?.focus();
  }
  button.addEventListener("click", () => open(menu.hidden));
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      open(false);
      button.focus();
      event.stopPropagation();
      return;
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const all = [...menu.querySelectorAll("button")];
    all[(all.indexOf(document.activeElement) + step + all.length) % all.length].focus();
  });
  document.addEventListener("click", (event) => !event.target.closest(".quality") && open(false));
  hls.on(Hls.Events.LEVEL_SWITCHED, draw);
  draw();
}

// Until it plays

const WORDS = {
  PENDING: ["Nearly there", "The film has arrived and waits for a free worker."],
  PROCESSING: ["Getting ready", "The film is being made ready for every screen."],
};

async function untilItPlays() {
  for (;;) {
    const film = await api(path).catch((problem) => (problem.status === 404 ? { status: "GONE" } : null));
    if (film?.hls_url) {
      page.querySelector("video").poster = film.thumbnail_url || "";
      return start(film.hls_url);
    }
    if (film) {
      const [title, text] = WORDS[film.status] || [];
      waiting.querySelector("h2").textContent = title || (film.status === "FAILED" ? "This film cannot be played" : "This film is gone");
      waiting.querySelector("p").textContent = text || film.error || "";
      waiting.querySelector("progress").value = film.progress || 0;
      waiting.classList.toggle("failed", !title);
      if (!title) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function showMore() {
  const { items } = await api("/api/videos?limit=13");
  const others = items.filter((other) => other.id !== id && other.status === "COMPLETED").slice(0, 12);
  page.querySelector(".next").hidden = others.length === 0;
  page.querySelector(".next .strip").replaceChildren(...others.map((other) => card(other)));
}

sendViews();
showViews();
showMore().catch(() => {}); // the row stays hidden
if (page.dataset.hls) start(page.dataset.hls);
else untilItPlays();
