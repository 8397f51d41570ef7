// Copies what the pages need of the browser libraries from node_modules to static/vendor.
import { cpSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const modules = join(here, "..", "..", "node_modules");
const vendor = join(here, "static", "vendor");

const files = {
  "hls.min.mjs": "hls.js/dist/hls.min.mjs",
  "media-chrome.js": "media-chrome/dist/iife/index.js",
  "swagger-ui.css": "swagger-ui-dist/swagger-ui.css",
  "swagger-ui-bundle.js": "swagger-ui-dist/swagger-ui-bundle.js",
};

rmSync(vendor, { recursive: true, force: true });
mkdirSync(vendor, { recursive: true });
for (const [name, source] of Object.entries(files)) {
  cpSync(join(modules, source), join(vendor, name));
}
