/** Requests of the console's API. */
export class Refusal extends Error {
  constructor(readonly status: number, readonly slug: string, message: string) {
    super(message);
  }
}

async function answer<T>(path: string, init: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(`/console/api/${path}`, init);
  } catch {
    throw new Refusal(0, "unreachable", "The server does not answer.");
  }
  if (response.ok) return (response.status === 204 ? null : await response.json()) as T;
  const error = await response.json().catch(() => ({}));
  throw new Refusal(response.status, error.slug ?? "", error.msg ?? `The server answered ${response.status}.`);
}

export const get = <T>(path: string) => answer<T>(path, {});

/** The header is what no other site can make a browser send. */
export const post = <T>(path: string, body: unknown = {}) =>
  answer<T>(path, {
    method: "POST",
    headers: { "x-heliograph-console": "1", "content-type": "application/json" },
    body: JSON.stringify(body),
  });
