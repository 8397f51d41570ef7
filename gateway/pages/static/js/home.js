import { api, card, clock, counted, element, facts, tabs, toast, withSaved } from "./api.js";

const PAGE = 24;
const films = new Map();

async function film(id) {
  if (!films.has(id)) films.set(id, api(`/api/videos/${encodeURIComponent(id)}`).catch(() => null));
  return films.get(id);
}

// What there is

const all = document.querySelector("#all");
const grid = all.querySelector(".grid");
const more = all.querySelector(".more");
let kind = "";
let shown = 0;

async function fill(isAnew) {
  if (isAnew) shown = 0;
  const query = new URLSearchParams({ limit: PAGE, offset: shown });
  if (kind) query.set("content_type", kind);
  try {
    const { total, items } = await api(`/api/videos?${query}`);
    const cards = items.map((video) => card(video));
    if (isAnew) grid.replaceChildren(...cards);
    else grid.append(...cards);
    shown += items.length;
    more.hidden = shown >= total;
    all.querySelector(".empty").hidden = total > 0;
    return items;
  } catch (problem) {
    if (isAnew) grid.replaceChildren();
    toast(`The films cannot be listed: ${problem.message}`, true);
    return [];
  }
}

tabs(all.querySelector(".tabs"), (data) => {
  kind = data.kind;
  fill(true);
});
more.addEventListener("click", () => fill(false));

// The film on top

function feature(video) {
  const hero = document.querySelector("#hero");
  if (!video) {
    hero.replaceChildren(
      element(
        "div",
        { class: "hero-text" },
        element("p", { class: "eyebrow" }, "Welcome"),
        element("h1", {}, "Your films, ready to play"),
        element("p", { class: "description" }, "Nothing is here yet. Upload the first film and watch it a moment later."),
        element("div", { class: "actions" }, element("a", { class: "primary", href: "/upload" }, "Upload a film")),
      ),
    );
    return;
  }
  const href = `/watch/${encodeURIComponent(video.id)}`;
  hero.replaceChildren(
    ...(video.thumbnail_url ? [element("img", { src: video.thumbnail_url, alt: "" })] : []),
    element(
      "div",
      { class: "hero-text" },
      element("p", { class: "eyebrow" }, facts(video)),
      element("h1", {}, video.title || "Untitled"),
      video.description && element("p", { class: "description" }, video.description),
      element(
        "div",
        { class: "actions" },
        element("a", { class: "primary", href }, "▶ Watch"),
        video.duration_seconds && element("span", { class: "quiet" }, clock(video.duration_seconds)),
      ),
    ),
  );
}

// Top 10, live

const top = document.querySelector("#top");
let stream;

async function draw(board) {
  // A view may be of a film that nobody has announced yet: it has no title, and no page.
  const items = board.items.filter((item) => item.title !== null);
  const found = await Promise.all(items.map((item) => film(item.video_id)));
  const cards = items.flatMap((item, index) =>
    found[index] ? [card(found[index], { rank: item.rank, note: counted(item.views, "view", "views") })] : [],
  );
  top.querySelector("ol").replaceChildren(...cards.map((each) => element("li", {}, each)));
  top.querySelector(".empty").hidden = cards.length > 0;
}

function follow(timeframe) {
  stream?.close();
  stream = new EventSource(`/api/analytics/top/stream?k=10&timeframe=${timeframe}`);
  stream.onmessage = (message) => draw(JSON.parse(message.data));
}

tabs(top.querySelector(".tabs"), (data) => follow(data.timeframe));
addEventListener("pagehide", () => stream?.close());

// Continue watching

async function offer() {
  const { items } = await api("/api/history/continue?limit=12");
  const row = document.querySelector("#continue");
  row.hidden = items.length === 0;
  row.querySelector(".strip").replaceChildren(
    ...items.map(({ video, percent, position_seconds, duration_seconds }) =>
      card(video, {
        percent,
        note: duration_seconds ? `${clock(Math.max(0, duration_seconds - position_seconds))} left` : `at ${clock(position_seconds)}`,
      }),
    ),
  );
  return items;
}

follow("day");
withSaved(offer, (items, id) => items.find(({ video }) => video.id === id)?.updated_at).catch(() => {}); // the row stays hidden
const newest = await fill(true);
feature(newest.find((video) => video.status === "COMPLETED"));
