// `node --import ./tests/js/built.mjs --test …`: the same claims about what is published, in place of its source.
import { register } from "node:module";

const hooks = `
const SOURCE = /^(.*\\/actors\\/client\\/js\\/)src\\/(index|react|history|msgpack|memory-store|file-store)\\.js$/;
export async function resolve(specifier, context, next) {
  const found = await next(specifier, context);
  const url = found.url.replace(SOURCE, (_, folder, name) => folder + "dist/" + (name === "index" ? "heliograph" : name) + ".js");
  return { ...found, url };
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
