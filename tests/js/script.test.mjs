// The build for a plain <script>, and the module that a server hands out: the same client as the source.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { createContext, runInContext } from "node:vm";

import * as source from "../../actors/client/js/src/index.js";
import * as built from "heliograph-client";

it("the module has what the source has", () => {
  assert.deepEqual(Object.keys(built).sort(), Object.keys(source).sort());
});

it("the script puts the same into one global, without a DOM", () => {
  const text = readFileSync(new URL("../../actors/client/js/dist/heliograph.script.js", import.meta.url), "utf8");
  const place = createContext({ URL });
  runInContext(text, place);
  assert.deepEqual(Object.keys(place.Heliograph).sort(), Object.keys(source).sort());
  class WebSocket {}
  runInContext("this.make = (WebSocket) => new Heliograph.SignalClient({ url: 'http://example.test', WebSocket, setTimeout() {}, clearTimeout() {} })", place);
  assert.equal(place.make(WebSocket).state.state, "connecting");
});
