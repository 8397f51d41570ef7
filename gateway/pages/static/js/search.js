import { api, card, counted, element, toast } from "./api.js";

const page = document.querySelector("#results");
const KINDS = { movie: "Movies", episode: "Episodes", short: "Shorts", documentary: "Documentaries" };
const chosen = {};

function facet(name, values, label = (value) => value) {
  return Object.entries(values).map(([value, count]) =>
    element(
      "button",
      {
        type: "button",
        "aria-pressed": String(chosen[name] === value),
        onclick: () => {
          chosen[name] = chosen[name] === value ? undefined : value;
          look();
        },
      },
      `${label(value)} ${count}`,
    ),
  );
}

async function look() {
  const query = new URLSearchParams({ query: page.dataset.query, limit: 60 });
  for (const [name, value] of Object.entries(chosen)) if (value) query.set(name, value);
  try {
    const { total, items, facets } = await api(`/api/videos/search?${query}`);
    page.querySelector(".count").textContent = counted(total, "film", "films");
    page.querySelector(".facets").replaceChildren(
      ...facet("content_type", facets.content_type, (value) => KINDS[value] || value),
      ...facet("genre", facets.genre),
    );
    page
      .querySelector(".grid")
      .replaceChildren(...items.map((video) => card(video, { markedTitle: video.highlight.title?.[0] })));
    page.querySelector(".empty").hidden = items.length > 0;
  } catch (problem) {
    page.querySelector(".grid").replaceChildren();
    toast(`The search does not answer: ${problem.message}`, true);
  }
}

look();
