// Builds the console's page: `node actors/console/page/build.mjs [FOLDER]`, by default into built. Needs esbuild.
// Names of scripts and styles have a hash of their content, so that browsers may keep them for ever.
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const outdir = process.argv[2] ?? here("built");

await mkdir(outdir, { recursive: true });
for (const name of await readdir(outdir)) await rm(`${outdir}/${name}`);
const { metafile } = await build({
  entryPoints: { console: here("src/main.tsx") },
  outdir,
  entryNames: "[name]-[hash]",
  alias: { "heliograph-client": here("../../client/js/src/index.js") },
  absWorkingDir: here("../../.."),
  bundle: true,
  minify: true,
  metafile: true,
  format: "esm",
  jsx: "automatic",
  jsxImportSource: "preact",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  banner: { js: "/* Heliograph, MIT; with Preact, Preact Signals and uPlot, MIT */" },
  logLevel: "warning",
});
const names = Object.keys(metafile.outputs).map((path) => basename(path));
const page = (await readFile(here("src/index.html"), "utf8"))
  .replace("console.css", names.find((name) => name.endsWith(".css")))
  .replace("console.js", names.find((name) => name.endsWith(".js")));
await writeFile(`${outdir}/index.html`, page);
