// A button that copies the address of the page. data: {note}: what the person who opens the link should know, if anything.

const TOLD = 2500;  // milliseconds that the button says what it did

// Browsers offer the clipboard only to pages of this machine or over HTTPS; the older way works everywhere.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = element("textarea", "", document.body, text);
    field.style.cssText = "position: fixed; opacity: 0";
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

// The app writes its choices to the address as they become known. Those that nobody clicked or typed for replace the entry of the
// history, so that Back leaves the page at once.
function mergeHistory() {
  if (window.__vizappHistory) return;
  window.__vizappHistory = true;
  let acted = false;
  const push = history.pushState;
  for (const event of ["pointerdown", "keydown"]) window.addEventListener(event, () => { acted = true; }, true);
  window.addEventListener("popstate", () => { acted = false; }, true);
  history.pushState = (state, title, url) => {
    const { href, pathname } = new URL(url, location.href), samePage = pathname === location.pathname;
    if (href === location.href) return;
    (samePage && !acted ? history.replaceState : push).call(history, state, title, url);
    acted = false;
  };
}

export default function (component) {
  mergeHistory();
  const { data, parentElement } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  const button = root.querySelector("button") || element("button", "", root, "Copy link");
  button.title = data.note || "A link that opens exactly this view";
  button.onclick = async () => {
    // The link shows the current photo alone; the others are there for a reload.
    const done = await copied(window.location.href.replace(/([?&])uploads=[^&]*&?/, "$1").replace(/[?&]$/, ""));
    button.textContent = done ? "Copied" : "Copy the address bar";
    say(root, done ? `Link copied. ${data.note}` : "The link cannot be copied; copy it from the address bar.");
    clearTimeout(root.__told);
    root.__told = setTimeout(() => { button.textContent = "Copy link"; }, TOLD);
  };
}
