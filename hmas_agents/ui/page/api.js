// How does the page ask its server? Errors carry the server's own words.

const token = document.querySelector('meta[name="hmas-token"]').content;

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
    headers: { "content-type": "application/json", "x-hmas-token": token },
    body: JSON.stringify(body),
  });
