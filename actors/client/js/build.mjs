// Builds what is published and served: `node actors/client/js/build.mjs [FOLDER]`, by default into dist. Needs esbuild.
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const outdir = process.argv[2] ?? here("dist");
const banner = { js: "/* Heliograph, MIT */" };
// Names that neither the wire nor an application ever sees; the types of index.d.ts name none of them.
const internal = [
  "welcomedAt heardAt proofBy pingAt moveAt moveTo openBy successor outgoing messageBytes silenceMs deadAt toldToGo",
  "nextRequest requestAgain retryAt lostAt modifies snapping snapped changeBySub asking pausedUntil disconnected awaits",
  "stateOf places trouble failure heard greet wanted asked accepted modified settle skip reach counts flush unsaved hasMoved succeed used item minMs",
  "request leave ask ready list number window take paused forget load moved read fail ping",
  "_do _close _enter _take _end _emit _moved _modify _changed",
].join(" ").split(" ");
const mangleProps = new RegExp(`^(${internal.join("|")})$`);
const common = { bundle: true, minify: true, mangleProps, target: "es2022", charset: "utf8", banner, logLevel: "warning" };

await Promise.all([
  build({ ...common, entryPoints: [here("src/index.js")], format: "esm", outfile: `${outdir}/heliograph.js` }),
  build({ ...common, entryPoints: [here("src/script.js")], format: "iife", outfile: `${outdir}/heliograph.script.js` }),
  build({ ...common, entryPoints: [here("src/react.js")], format: "esm", external: ["react"], outfile: `${outdir}/react.js` }),
]);
