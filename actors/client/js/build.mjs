// Builds what is published and served: `node actors/client/js/build.mjs [FOLDER]`, by default into dist. Needs esbuild and terser.
import { mkdir, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { minify } from "terser";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const outdir = process.argv[2] ?? here("dist");
const banner = "/* Heliograph, MIT */";
// Names that neither the wire nor an application ever sees; the types of index.d.ts name none of them.
const internal = [
  "welcomedAt heardAt proofBy pingAt moveAt moveTo openBy successor outgoing messageBytes silenceMs deadAt toldToGo",
  "nextRequest requestAgain retryAt lostAt modifies snapping snapped changeBySub asking pausedUntil disconnected awaits",
  "stateOf places trouble failure heard greet wanted asked accepted modified settle skip reach counts flush unsaved hasMoved succeed used item minMs",
  "request leave ask ready list number window take paused forget load moved read fail ping",
  "_do _close _enter _take _end _emit _moved _modify _changed",
].join(" ").split(" ");
const mangleProps = new RegExp(`^(${internal.join("|")})$`);
const common = { bundle: true, mangleProps, target: "es2022", charset: "utf8", logLevel: "warning", write: false };

/** esbuild bundles and shortens the names of properties; terser makes the rest shorter than esbuild does. */
async function made(name, options) {
  const { outputFiles: [bundled] } = await build({ ...common, minify: true, outfile: name, ...options });
  const { code } = await minify(bundled.text, {
    module: options.format === "esm",
    ecma: 2022,
    compress: { passes: 3 },
    format: { preamble: banner },
  });
  await mkdir(outdir, { recursive: true });
  await writeFile(`${outdir}/${name}`, `${code}\n`);
}

await Promise.all([
  made("heliograph.js", { entryPoints: [here("src/index.js")], format: "esm" }),
  made("heliograph.script.js", { entryPoints: [here("src/script.js")], format: "iife" }),
  made("react.js", { entryPoints: [here("src/react.js")], format: "esm", external: ["react"] }),
]);
