// The page: asks the API for the newest entries, and passes a signed form on to it.
const express = require("express");

const api = process.env.API_URL;
const title = process.env.TITLE || "Guestbook";

const escape = (text) =>
  String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

const page = (entries, version) => `<!doctype html>
<meta charset="utf-8">
<title>${escape(title)}</title>
<h1>${escape(title)}</h1>
<form method="post" action="/sign">
  <input name="name" placeholder="Your name" required>
  <input name="text" placeholder="A few words" required>
  <button>Sign</button>
</form>
<ul>
${entries.map((e) => `  <li><b>${escape(e.name)}</b>: ${escape(e.text)}</li>`).join("\n")}
</ul>
<p>api ${escape(version)}</p>
`;

const app = express();
app.use(express.urlencoded({ extended: false }));

app.get("/health", (_, response) => response.send("ok"));

app.get("/", async (_, response, next) => {
  try {
    const answer = await fetch(`${api}/api/entries`);
    if (!answer.ok) throw new Error(`the api answered ${answer.status}`);
    response.send(page(await answer.json(), answer.headers.get("x-version")));
  } catch (error) {
    next(error);
  }
});

app.post("/sign", async (request, response, next) => {
  try {
    const answer = await fetch(`${api}/api/entries`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ name: request.body.name, text: request.body.text }),
    });
    if (!answer.ok) throw new Error(`the api answered ${answer.status}`);
    response.redirect(303, "/");
  } catch (error) {
    next(error);
  }
});

const server = app.listen(3000, () => console.log("guestbook web listens on 3000"));
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
