// Is this run still being written? Asked by the views that draw a timeline.

const LIVE_S = 30;

// A run is live when it is its ledger's newest and the file was just written.
export function isLive(key, pulse) {
  if (!pulse || !key) return false;
  const ledger = key.split("-")[0];
  const newest = pulse.runs.filter((run) => run.startsWith(`${ledger}-`)).at(-1);
  return newest === key && isFresh(pulse.ledgers[Number(ledger)]?.written_s);
}

export const isFresh = (writtenS) => Date.now() / 1000 - (writtenS ?? 0) < LIVE_S;
