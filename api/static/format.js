// How numbers and times are written: times are UTC everywhere.

const DAY_MS = 86_400_000;
const SECONDS = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];

export const count = (number) => Math.round(number).toLocaleString("en-US");

export function plural(number, noun) {
  return `${count(number)} ${noun}${Math.round(number) === 1 ? "" : "s"}`;
}

/** Write a time of ms as `2024-05-01 12:30`, the date alone at midnight if asked. */
export function time(ms, { dateAlone = false } = {}) {
  const text = new Date(ms).toISOString();
  if (dateAlone && ms % DAY_MS === 0) return text.slice(0, 10);
  return `${text.slice(0, 10)} ${text.slice(11, ms % 60_000 ? 19 : 16)}`;
}

export function period(start, end) {
  return `${time(start, { dateAlone: true })} – ${time(end, { dateAlone: true })}`;
}

/** Write seconds in the unit that fits: `about` figures need no more. */
export function seconds(number) {
  if (number < 1) return "a second";
  const [unit, size] = SECONDS.find(([, each]) => number >= each);
  const amount = number / size;
  return `${amount < 10 && size > 1 ? amount.toFixed(1) : Math.round(amount)} ${unit}`;
}

export function days(ms) {
  const number = ms / DAY_MS;
  return `${number >= 100 ? count(number) : Number(number.toFixed(number < 10 ? 2 : 1))} days`;
}

const priceFormats = new Map();
const volumeFormats = [{}, { notation: "compact" }].map((more) => new Intl.NumberFormat("en-US", { maximumSignificantDigits: 6, ...more }));

/** Write a price with as many digits as its tick has. */
export function price(number, digits) {
  if (!priceFormats.has(digits)) {
    priceFormats.set(digits, new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  }
  return priceFormats.get(digits).format(number);
}

export const volume = (number) => volumeFormats[number >= 1e6 ? 1 : 0].format(number);

/** Count the digits after the point that a price step needs. */
export function digitsOf(step) {
  if (!(step > 0)) return null;
  const [digits, exponent = "0"] = step.toString().split("e");
  return Math.max(0, (digits.split(".")[1] ?? "").length - Number(exponent));
}
