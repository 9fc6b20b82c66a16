/** The console: who is let in, the frame around the pages, and which of them is shown. */
import { signal } from "@preact/signals";
import { render } from "preact";
import { useState } from "preact/hooks";

import { Refusal, post } from "./api";
import "./console.css";
import { Keys } from "./keys";
import { enter, leave, lost, refusal, session } from "./model";
import { lastSeen, pageOf, pages, shown } from "./pages";
import { theme, turn } from "./theme";

const here = signal(location.hash);
addEventListener("hashchange", () => {
  here.value = location.hash;
  document.getElementById("main")?.focus();
});

function SignIn() {
  const [said, say] = useState("");
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    try {
      await post("login", { password: new FormData(event.target as HTMLFormElement).get("password") });
      await enter();
    } catch (error) {
      say(error instanceof Refusal ? error.message : String(error));
    }
  };
  return (
    <main class="alone">
      <h1>Heliograph console</h1>
      <form class="card" onSubmit={submit}>
        <label for="password">Password</label>
        <input id="password" name="password" type="password" autocomplete="current-password" required />
        <button type="submit" class="primary">Sign in</button>
        <p role="alert" class="error">{said}</p>
      </form>
    </main>
  );
}

function Shell() {
  const names = shown();
  const name = names.find((one) => one === pageOf(here.value)) ?? names[0] ?? "overview";
  const { title, View } = pages[name]!;
  const out = async () => {
    await post("logout").catch(() => {});
    leave();
    await enter();
  };
  const skip = () => document.getElementById("main")?.focus();
  return (
    <>
      <button type="button" class="skip" onClick={skip}>Skip to the content</button>
      <header>
        <span class="brand">Heliograph</span>
        <nav aria-label="Pages">
          {names.map((one) => <a key={one} href={`#/${one}`} aria-current={one === name ? "page" : undefined}>{pages[one]!.title}</a>)}
        </nav>
        <button type="button" onClick={turn}>{theme.value === "dark" ? "Light" : "Dark"}</button>
        {session.value!.operator === "password" && <button type="button" onClick={out}>Sign out</button>}
      </header>
      <div role="alert">{lost.value && <p class="lost">No connection to the server. What is shown is of {lastSeen() || "before"}; the page goes on by itself.</p>}</div>
      <main id="main" tabIndex={-1}>
        <h1>{title}</h1>
        <View key={here.value} />
      </main>
      <footer>heliograph {session.value!.version} · <kbd>?</kbd> shows the keys</footer>
      <Keys />
    </>
  );
}

function App() {
  if (session.value !== null) return <Shell />;
  if (refusal.value?.status === 401) return <SignIn />;
  return <main class="alone"><h1>Heliograph console</h1><p role="status">{refusal.value?.message ?? "Asking the server…"}</p></main>;
}

render(<App />, document.getElementById("app")!);
void enter();
