// An upload in parts: several at once, paused and resumed at will, and after a reload too.
import { api, megabytes, Problem, toast } from "./api.js";

const AT_ONCE = 4;
const TRIES = 8;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const KEPT = "et.upload";
const SPEED_SPAN_MS = 4_000;
const NUMBERS = new Set(["release_year", "season_number", "episode_number"]);
const OVER = new Set([400, 401, 404, 410, 422]); // of an upload: no try will mend it

const form = document.querySelector("#upload");
const picker = document.querySelector("#file");
const drop = document.querySelector("#drop");
const panel = document.querySelector("#progress");
const notice = document.querySelector("#resume");

const kept = () => JSON.parse(localStorage.getItem(KEPT) || "null");
const keep = (upload) => localStorage.setItem(KEPT, JSON.stringify(upload));
const forget = () => localStorage.removeItem(KEPT);
const printOf = (file) => `${file.name}|${file.size}|${file.lastModified}`;
const wait = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });

let running = null;

// Fields

function fields() {
  const data = {};
  for (const [name, value] of new FormData(form)) {
    const text = typeof value === "string" ? value.trim() : "";
    const isAway = form.elements[name].closest?.("[hidden]");
    if (text && name !== "file" && !isAway) data[name] = NUMBERS.has(name) && /^\d+$/.test(text) ? Number(text) : text;
  }
  return data;
}

function complain(errors) {
  for (const place of form.querySelectorAll(".error")) place.hidden = true;
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  for (const { pointer = "", detail } of errors) {
    const name = pointer.replace(/^#\//, "");
    const named = form.querySelector(`.error[data-for="${CSS.escape(name)}"]`);
    const place = named || form.querySelector('.error[data-for="form"]');
    place.textContent = named || !name ? detail : `${name}: ${detail}`;
    place.hidden = false;
    form.elements[name]?.setAttribute?.("aria-invalid", "true");
  }
  form.querySelector("[aria-invalid]")?.focus();
}

function chooseFile(file) {
  const [strong, span] = drop.querySelectorAll("strong, span");
  strong.textContent = file ? file.name : "Drop a film here";
  span.textContent = file ? megabytes(file.size) : "or choose a file";
  if (file && !form.elements.title.value) form.elements.title.value = file.name.replace(/\.[^.]+$/, "").replace(/[._]+/g, " ");
  complain([]);
}

form.elements.content_type.addEventListener("change", (event) => {
  document.querySelector("#episode").hidden = event.target.value !== "episode";
});
picker.addEventListener("change", () => {
  const upload = kept();
  const file = picker.files[0];
  chooseFile(file);
  if (file && upload?.print === printOf(file)) go(upload, file);
});
for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, () => drop.classList.add("over"));
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const file = picker.files[0];
  const data = fields();
  const errors = [];
  if (!file) errors.push({ pointer: "#/file", detail: "Choose a film first." });
  else if (!file.size) errors.push({ pointer: "#/file", detail: "This file is empty." });
  if (!data.title) errors.push({ pointer: "#/title", detail: "A film needs a title." });
  complain(errors);
  if (errors.length) return;
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    const begun = await api("/api/multipart/initiate", { method: "POST", json: { ...data, filename: file.name, size: file.size } });
    const upload = { ...begun, title: data.title, name: file.name, size: file.size, print: printOf(file) };
    keep(upload);
    await go(upload, file);
  } catch (problem) {
    complain(problem.errors?.length ? problem.errors : [{ detail: problem.message }]);
  } finally {
    button.disabled = false;
  }
});

// Parts

class Upload {
  constructor(upload, file) {
    Object.assign(this, { upload, file, sent: new Map(), samples: [], isPaused: false });
    this.stop = new AbortController();
    this.pausing = new AbortController();
    this.going = Promise.resolve();
  }

  async send() {
    const { parts } = await this.persist(() => api(`/api/multipart/list-parts?upload_id=${encodeURIComponent(this.upload.upload_id)}`));
    for (const { part_number, size } of parts) this.sent.set(part_number, size);
    const missing = [];
    for (let number = 1; number <= this.upload.total_parts; number++) if (!this.sent.has(number)) missing.push(number);
    this.draw();
    const lane = async () => {
      while (missing.length) await this.sendPart(missing.shift());
    };
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
    say("Finishing");
    return this.persist(() => api("/api/multipart/complete", { method: "POST", json: { upload_id: this.upload.upload_id } }));
  }

  async sendPart(number) {
    const start = (number - 1) * this.upload.part_size;
    const body = this.file.slice(start, start + this.upload.part_size);
    const query = new URLSearchParams({ upload_id: this.upload.upload_id, part_number: number });
    await this.persist(() => {
      const signal = AbortSignal.any([this.stop.signal, this.pausing.signal]);
      const headers = { "Content-Type": "application/octet-stream" };
      return api(`/api/multipart/part?${query}`, { method: "POST", body, headers, signal });
    });
    this.sent.set(number, body.size);
    this.samples.push([performance.now(), body.size]);
    this.draw();
  }

  // Tries again with a growing pause; a pause of the user's waits for as long as it takes and costs no try.
  async persist(call) {
    for (let tries = 1; ; ) {
      await this.going;
      if (this.stop.signal.aborted) throw this.stop.signal.reason;
      try {
        return await call();
      } catch (error) {
        if (this.stop.signal.aborted) throw this.stop.signal.reason;
        if (this.isPaused) continue;
        if ((error instanceof Problem && OVER.has(error.status)) || tries === TRIES) throw error;
        say("Trying again");
        const backOff = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** tries++) * (0.5 + Math.random() / 2);
        await wait(Math.max(backOff, (error.retryAfterSeconds || 0) * 1000), this.stop.signal);
      }
    }
  }

  pause() {
    this.isPaused = true;
    this.going = new Promise((resolve) => (this.goOn = resolve));
    this.pausing.abort();
    this.draw();
  }

  resume() {
    this.isPaused = false;
    this.pausing = new AbortController();
    this.samples = [];
    this.goOn();
    this.draw();
  }

  giveUp() {
    this.stop.abort(new Error("given up"));
    this.goOn?.();
  }

  draw() {
    const sent = [...this.sent.values()].reduce((sum, size) => sum + size, 0);
    const now = performance.now();
    this.samples = this.samples.filter(([at]) => now - at < SPEED_SPAN_MS);
    const recent = this.samples.reduce((sum, [, size]) => sum + size, 0);
    const span = this.samples.length > 1 ? (now - this.samples[0][0]) / 1000 : 0;
    const speed = span > 0.2 && !this.isPaused ? ` · ${megabytes(recent / span)}/s` : "";
    panel.querySelector("progress").value = sent / this.upload.size;
    panel.querySelector(".numbers").textContent = `${megabytes(sent)} of ${megabytes(this.upload.size)}${speed}`;
    say(this.isPaused ? "Paused" : "Sending");
  }
}

function say(text) {
  panel.querySelector(".state").textContent = text;
}

async function go(upload, file) {
  notice.hidden = true;
  form.hidden = true;
  panel.hidden = false;
  panel.querySelector(".name").textContent = upload.title || file.name;
  running = new Upload(upload, file);
  addEventListener("beforeunload", warn);
  try {
    const { video_id } = await running.send();
    forget();
    removeEventListener("beforeunload", warn);
    panel.querySelector(".buttons").hidden = true;
    await follow(video_id);
  } catch (error) {
    removeEventListener("beforeunload", warn);
    if (running.stop.signal.aborted) return;
    if (error instanceof Problem && OVER.has(error.status)) forget();
    toast(`The upload ended: ${error.message}`, true);
    form.hidden = false;
    panel.hidden = true;
    remember();
  }
}

function warn(event) {
  event.preventDefault();
}

// What becomes of it

async function follow(id) {
  const bar = panel.querySelector("progress");
  const link = panel.querySelector(".watch");
  link.href = `/watch/${encodeURIComponent(id)}`;
  link.hidden = false;
  link.textContent = "Open its page";
  panel.querySelector(".numbers").textContent = "The film is here. It is being made ready for every screen.";
  for (;;) {
    const video = await api(`/api/videos/${encodeURIComponent(id)}`).catch(() => null);
    if (video) {
      bar.value = video.progress;
      say({ PENDING: "Waiting for a free worker", PROCESSING: "Processing", COMPLETED: "Ready", FAILED: "Failed" }[video.status]);
      if (video.status === "COMPLETED") {
        link.textContent = "Watch it";
        panel.querySelector(".numbers").textContent = "It plays in every quality that its picture allows.";
        return;
      }
      if (video.status === "FAILED") {
        panel.querySelector(".numbers").textContent = video.error;
        return;
      }
    }
    await wait(700);
  }
}

panel.querySelector(".pause").addEventListener("click", (event) => {
  if (!running) return;
  if (running.isPaused) running.resume();
  else running.pause();
  event.target.textContent = running.isPaused ? "Resume" : "Pause";
});
panel.querySelector(".abort").addEventListener("click", async () => {
  const { upload } = running;
  running.giveUp();
  forget();
  panel.hidden = true;
  form.hidden = false;
  await api("/api/multipart/abort", { method: "POST", json: { upload_id: upload.upload_id } }).catch((problem) => toast(problem.message, true));
  toast("The upload was given up; nothing of it is kept.");
});

function remember() {
  const upload = kept();
  if (!upload) return;
  if (new Date(upload.expires_at) < new Date()) return forget();
  notice.querySelector("b").textContent = upload.title || upload.name;
  notice.hidden = false;
}
notice.querySelector("button").addEventListener("click", async () => {
  const upload = kept();
  forget();
  notice.hidden = true;
  await api("/api/multipart/abort", { method: "POST", json: { upload_id: upload.upload_id } }).catch(() => {});
});
remember();
