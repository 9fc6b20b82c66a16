/** Light or dark: as the system has it, or as was chosen here. */
import { effect, signal } from "@preact/signals";

const system = matchMedia("(prefers-color-scheme: dark)");
const chosen = signal(localStorage.getItem("heliograph-theme"));
export const theme = signal<"light" | "dark">("light");
const dark = signal(system.matches);
system.addEventListener("change", () => (dark.value = system.matches));

effect(() => {
  theme.value = chosen.value === "dark" || (chosen.value !== "light" && dark.value) ? "dark" : "light";
  document.documentElement.dataset.theme = theme.value;
});

export function turn(): void {
  chosen.value = theme.value === "dark" ? "light" : "dark";
  localStorage.setItem("heliograph-theme", chosen.value);
}
