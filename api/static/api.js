// Requests to the service, with the token; anything but success becomes a Problem.

import { token } from "./token.js";

const UNREACHABLE_RETRY_SECONDS = 5;

/** An error of the service, with the words of its problem body. */
export class Problem extends Error {
  constructor({ status = 0, code, detail, retryAfter = null, body = {} }) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
    this.body = body;
  }
}

/** Send a request; return the response if it is a success. Throws Problem, or AbortError. */
export async function send(path, { method = "GET", json, signal, accept = "application/json" } = {}) {
  const headers = { Accept: accept };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (json) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: json && JSON.stringify(json) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      code: "unreachable",
      detail: "The service does not answer. Is it running, and is the network up?",
      retryAfter: UNREACHABLE_RETRY_SECONDS,
    });
  }
  if (response.ok) return response;
  throw await problemOf(response);
}

export async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(parameters).toString();
  return (await send(query ? `${path}?${query}` : path, { signal })).json();
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const detail = body.detail || `The service answered ${response.status} without a word.`;
  const problem = new Problem({ status: response.status, code: body.code, detail, retryAfter, body });
  if (response.status === 401) token.refuse(detail);
  return problem;
}

/** Return the path of a series under an endpoint; slashes in symbols stay what they are. */
export function seriesPath(endpoint, { exchange, market_type: market, symbol, interval }) {
  const names = [exchange, market, symbol, interval].map(encodeURIComponent);
  return `/${endpoint}/${names.join("/")}`;
}

/** Wait, unless it is called off. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("called off", "AbortError"));
    });
  });
}
