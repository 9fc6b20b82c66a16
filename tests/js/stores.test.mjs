// Where cursors are kept: every store is one for a client.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";

import { FileCursorStore } from "../../actors/client/js/src/file-store.js";
import { MemoryCursorStore } from "../../actors/client/js/src/memory-store.js";
import { World } from "./world.mjs";

const folder = (test) => {
  const made = mkdtempSync(join(tmpdir(), "cursors-"));
  test.after(() => rmSync(made, { recursive: true }));
  return made;
};

const STORES = {
  memory: () => {
    const store = new MemoryCursorStore();
    return () => store;
  },
  file: (test) => {
    const path = join(folder(test), "cursors.json");
    return () => new FileCursorStore(path); // as another run of the program would
  },
};

for (const [name, kind] of Object.entries(STORES)) {
  describe(`the ${name} store`, () => {
    it("brings the next client to where the last one was", (test) => {
      const store = kind(test);
      const first = new World({ cursorStore: store() });
      first.client.subscribe({ name: "px" }).on("signal", () => {});
      first.client.subscribe({ name: "other", types: "a" });
      first.greet();
      first.signals(0, 1, 2);
      first.client.close();
      const second = new World({ cursorStore: store() });
      second.client.subscribe({ name: "px", since: "earliest" });
      second.client.subscribe({ name: "new", since: "earliest" });
      assert.deepEqual(second.greet().subs.map(({ from }) => from), [{ cursor: "E:2" }, "earliest"]);
    });

    it("has nothing for who was never there", (test) => {
      assert.equal(kind(test)().getItem("nobody"), null);
    });
  });
}

describe("the file of cursors", () => {
  it("is replaced in one step, and keeps what others have put there", (test) => {
    const path = join(folder(test), "cursors.json");
    const [one, other] = [new FileCursorStore(path), new FileCursorStore(path)];
    one.setItem("a", "E:1");
    other.setItem("b", "E:2");
    one.setItem("a", "E:3");
    assert.deepEqual([one.getItem("a"), one.getItem("b"), other.getItem("a")], ["E:3", "E:2", "E:3"]);
    assert.deepEqual(readdirSync(join(path, "..")), ["cursors.json"]);
    assert.equal(JSON.parse(readFileSync(path, "utf8")).format, "heliograph-cursors");
  });

  it("that is another one, or damaged, or of a newer release is left alone, and said", (test) => {
    const path = join(folder(test), "cursors.json");
    for (const [content, said] of [
      ["{}", /not a file of cursors/],
      ["half of it", /not a file of cursors, or damaged/],
      ['{"format":"heliograph-cursors","version":2,"cursors":{}}', /has version 2; this release reads 1/],
    ]) {
      writeFileSync(path, content);
      const store = new FileCursorStore(path);
      assert.throws(() => store.getItem("a"), said);
      assert.throws(() => store.setItem("a", "E:1"), said);
      assert.equal(readFileSync(path, "utf8"), content);
    }
  });

  it("in a folder that is not there is reported, and stops nothing", (test) => {
    const told = [];
    globalThis.reportError = (error) => told.push(error.code);
    test.after(() => delete globalThis.reportError);
    const world = new World({ cursorStore: new FileCursorStore(join(folder(test), "none", "cursors.json")) });
    const seen = [];
    world.client.subscribe({ name: "px" }).on("signal", ({ offset }) => seen.push(offset));
    world.greet();
    world.signals(0, 1);
    world.client.close();
    assert.deepEqual([seen, told], [[1], ["ENOENT"]]);
  });
});
