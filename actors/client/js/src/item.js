/** What an application reads: signals, and gaps that say what is missing. */

export function signalItem(epoch, { o, ...signal }) {
  return { kind: "signal", epoch, offset: o, cursor: `${epoch}:${o}`, ...signal };
}

export function gapItem(epoch, after, upto, reason) {
  return { kind: "gap", epoch, after, upto, reason };
}
