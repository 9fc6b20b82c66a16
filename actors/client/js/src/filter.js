/** Filters, and conditions for their `where`: `f("/data/pct").gte(2.5)`, `all(…)`, `any(…)`, `not(…)`. */

const OPERATORS = ["eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "prefix", "suffix", "contains"];

/** The value at a JSON Pointer of the signal: `/type`, `/entity`, `/ts`, `/tags/x`, `/data/a/b`. */
export function f(pointer) {
  const made = OPERATORS.map((op) => [op, (v) => ({ f: pointer, op, v })]);
  return { ...Object.fromEntries(made), exists: () => ({ f: pointer, op: "exists" }) };
}

export const all = (...conditions) => ({ all: conditions });
export const any = (...conditions) => ({ any: conditions });
export const not = (condition) => ({ not: condition });

/** A filter as the protocol has it. */
export function filterOf({ types, entities, where }) {
  const filter = {};
  if (types !== undefined) filter.types = [types].flat();
  if (entities !== undefined) filter.entities = [entities].flat();
  if (where !== undefined) filter.where = where;
  return filter;
}
