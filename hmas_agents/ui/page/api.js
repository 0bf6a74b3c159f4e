// How does the page ask its server? Errors carry the server's own words.

// The token of the printed address is in the cookie now: it need not stay in the history.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);

async function ask(path, init) {
  let reply;
  try {
    reply = await fetch(path, init);
  } catch {
    throw new Error("The page's server does not answer: was `hmas ui` ended?");
  }
  const body = await reply.json();
  if (!reply.ok) throw new Error(body.error);
  return body;
}

export const get = (path) => ask(path, {});

export const post = (path, body) =>
  ask(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
