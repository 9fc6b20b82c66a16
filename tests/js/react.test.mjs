// useSignals, with React from npm and without a DOM.
import assert from "node:assert/strict";
import { it, mock } from "node:test";
import { createElement as h, StrictMode, useState } from "react";
import { act, create } from "react-test-renderer";

import { SignalProvider, useSignals } from "../../actors/client/js/src/react.js";
import { World } from "./world.mjs";

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
console.error = ((said) => (...words) => String(words[0]).includes("react-test-renderer is deprecated") || said(...words))(console.error);

/** Mount `parts` under a provider, with the page's timers in the test's hand. */
async function mounted(body, parts, wrap = (child) => child) {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const world = new World();
    let tree;
    await act(() => (tree = create(wrap(h(SignalProvider, { client: world.client }, parts)))));
    const frame = (ms = 16) => act(() => mock.timers.tick(ms));
    await body({ world, tree, frame, text: () => tree.root.findAllByType("p").map(({ children }) => children.join("")) });
    await act(() => tree.unmount());
  } finally {
    mock.timers.reset();
  }
}

const OPTIONS = { name: "px", types: ["t"] };
let renders = 0;

function Prices({ view }) {
  const { signals, latest, state, gap } = useSignals(OPTIONS, view);
  renders += 1;
  const offsets = (list) => list.map(({ offset }) => offset).join(" ");
  return h("p", null, `${state}: ${offsets(signals)} | ${offsets([...latest.values()])} | ${gap?.reason ?? ""}`);
}

it("shows what arrives, at most once per frame, the newest at the end", () =>
  mounted(async ({ world, frame, text }) => {
    await act(() => world.greet());
    await frame();
    renders = 0;
    await act(() => {
      for (let o = 1; o <= 100; o += 1) world.signals(o - 1, o);
    });
    assert.equal(renders, 0);
    await frame();
    assert.equal(renders, 1);
    assert.deepEqual(text(), ["live: 98 99 100 | 100 | "]);
    await act(() => world.socket.say({ t: "gap", s: "px", a: 100, b: 110, reason: "slow" }));
    await frame();
    assert.deepEqual(text(), ["live: 98 99 100 | 100 | slow"]);
  }, h(Prices, { view: { keep: 3, latestBy: "entity" } })));

it("StrictMode mounts twice and subscribes once", () =>
  mounted(async ({ world, frame }) => {
    assert.deepEqual(world.greet().subs.map(({ s }) => s), ["px"]);
    await frame(1_000);
    assert.deepEqual(world.socket.sent.map(({ t }) => t), ["hello"]);
  }, h(Prices), (child) => h(StrictMode, null, child)));

it("components that ask for the same share one subscription", () =>
  mounted(async ({ world, frame, text }) => {
    await act(() => world.greet());
    await act(() => world.signals(0, 1));
    await frame();
    assert.deepEqual(text(), ["live: 1 |  | ", "live: 1 |  | "]);
    assert.equal(world.socket.sent[0].subs.length, 1);
  }, [h(Prices, { key: 1 }), h(Prices, { key: 2 })]));

it("a subscription lingers for 250 ms when the last component has gone, and then ends", async () => {
  let show;
  function Page() {
    const [shown, set] = useState(true);
    show = set;
    return shown ? h(Prices) : null;
  }
  await mounted(async ({ world, frame }) => {
    await act(() => world.greet());
    await act(() => show(false));
    await frame(249);
    await act(() => show(true));
    await frame(1_000);
    assert.deepEqual(world.socket.sent.map(({ t }) => t), ["hello"]);
    await act(() => show(false));
    await frame(250);
    assert.equal(world.socket.sent.at(-1).t, "unsub");
    await act(() => show(true)); // and begins anew
    assert.equal(world.socket.sent.at(-1).t, "sub");
  }, h(Page));
});

it("without a client it says what to do", async () => {
  mock.method(console, "error", () => {});
  await assert.rejects(async () => act(() => create(h(Prices))), /wrap the app in <SignalProvider/);
});
