// Builds what is published and served: `node actors/client/js/build.mjs [FOLDER]`, by default into dist. Needs esbuild and terser.
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { minify } from "terser";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const outdir = process.argv[2] ?? here("dist");
const banner = "/* Heliograph, MIT */";
// Names that neither the wire nor an application ever sees; the types of index.d.ts name none of them.
const internal = [
  "welcomedAt heardAt proofBy pingAt ackAt acknowledge moveAt moveTo openBy successor outgoing messageBytes silenceMs deadAt toldToGo",
  "nextRequest requestAgain retryAt lostAt modifies snapping snapped changeBySub asking pausedUntil disconnected awaits",
  "greeting greeted areBusy refuse answered answer change next stateOf places trouble renews failure heard greet wanted asked accepted modified settle skip reach counts flush unsaved hasMoved succeed used item minMs",
  "request leave ask ready list number window take paused forget load moved read fail ping",
  "changed _do _close _enter _take _end _emit _moved _modify _changed",
].join(" ").split(" ");
const mangleProps = new RegExp(`^(${internal.join("|")})$`);
const common = { bundle: true, mangleProps, target: "es2022", charset: "utf8", logLevel: "warning", write: false };

/** What is its own class in every bundle would not be `instanceof` the application's: the doors share the first one's. */
const sharesTheClient = {
  name: "shares-the-client",
  setup({ onResolve }) {
    onResolve({ filter: /^\.\/index\.js$/ }, ({ kind }) => (kind === "entry-point" ? undefined : { path: "heliograph-client", external: true }));
  },
};

/** esbuild bundles and shortens the names of properties; terser makes the rest shorter than esbuild does. */
async function made(name, entry, { format, ...options }) {
  const { outputFiles: [bundled] } = await build({
    ...common, minify: true, outfile: name, entryPoints: [here(`src/${entry}.js`)], format, ...options,
  });
  const { code } = await minify(bundled.text, {
    module: format === "esm",
    ecma: 2022,
    compress: { passes: 3, pure_getters: true, hoist_funs: true, reduce_funcs: false }, // what gzip likes best
    format: { preamble: banner },
  });
  await writeFile(`${outdir}/${name}`, `${code}\n`);
}

/** One entry point of the package: for `import` and for `require`, with types for each. */
async function door(name, entry, options = {}) {
  await made(`${name}.js`, entry, { format: "esm", ...options });
  await made(`${name}.cjs`, entry, { format: "cjs", ...options });
  await copyFile(here(`${entry}.d.ts`), `${outdir}/${name}.d.cts`);
}

await mkdir(outdir, { recursive: true });
await Promise.all([
  door("heliograph", "index"),
  door("react", "react", { external: ["react"] }),
  door("history", "history", { plugins: [sharesTheClient] }),
  door("msgpack", "msgpack"),
  door("memory-store", "memory-store"),
  door("file-store", "file-store", { platform: "node" }),
  made("heliograph.script.js", "script", { format: "iife" }),
]);
