// How are figures written? Units follow names; a dash is what is not known.

export const percent = (share) =>
  share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)}%`;

export const number = (value, digits = 4) =>
  value === null || value === undefined
    ? "–"
    : Number.isInteger(value)
      ? value.toLocaleString("en-US").replaceAll(",", "\u2009")
      : String(Number(value.toPrecision(digits)));

// Seconds since the run's start as 0:05, 12:34 or 1:02:03.
export function elapsed(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

// Engine time: a date where it is Unix time, plain seconds where it is virtual.
export function clock(atS) {
  if (atS < 1e9) return `${atS.toFixed(1)} s of virtual time`;
  return new Date(1000 * atS).toISOString().replace("T", " ").slice(0, 19) + " UTC";
}

export function ago(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

export const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

// Any JSON value in a few characters.
export function short(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return number(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.map(short).join(", ") || "none";
  if (typeof value === "object")
    return Object.entries(value).map(([key, item]) => `${key}=${short(item)}`).join(", ") || "none";
  return String(value);
}
