/* Heliograph, MIT */
var t=class{#t=new Map;getItem(t){return this.#t.get(t)??null}setItem(t,e){this.#t.set(t,e)}};export{t as MemoryCursorStore};
