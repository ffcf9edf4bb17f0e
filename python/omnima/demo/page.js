// What the page does by itself: news for screen readers, tokens by mouse and by key, dark and light,
// text files. Nothing is asked of any other machine.
(() => {
  "use strict";

  // News: what changes in these is read out. Gradio makes them late, and may make them anew.
  const LIVE = ["chat-status", "compare-status", "training-status"];

  const LOGS = {
    "chat-log-0": "Conversation",
    "compare-log-0": "Left conversation",
    "compare-log-1": "Right conversation",
  };

  const named = () => {
    for (const id of LIVE) {
      // Inside, without Gradio's own words about its queue.
      const place = document.querySelector(`#${id} .html-container`);
      if (place && place.getAttribute("role") !== "status") {
        place.setAttribute("role", "status");
        place.setAttribute("aria-live", "polite");
      }
    }
    for (const [id, label] of Object.entries(LOGS)) {
      const log = document.getElementById(id);
      if (log && !log.hasAttribute("role")) {
        log.setAttribute("role", "region");
        log.setAttribute("aria-label", label);
        log.tabIndex = 0;
      }
    }
  };

  // A conversation stays at its end while it grows, unless somebody has scrolled up.
  const atEnd = new WeakMap();

  const follow = () => {
    for (const log of document.querySelectorAll(".log")) {
      if (!atEnd.has(log)) {
        atEnd.set(log, true);
        log.addEventListener("scroll", () => {
          atEnd.set(log, log.scrollHeight - log.scrollTop - log.clientHeight < 40);
        });
      }
      if (atEnd.get(log)) log.scrollTop = log.scrollHeight;
    }
  };

  // Tokens: one of a list can be reached by Tab, the others from there.
  const isToken = (node) => node instanceof Element && node.matches(".tokens .token");
  const tokenOf = (event) => (isToken(event.target) ? event.target : null);
  let tip = null;
  let shown = null;

  const row = (table, text, chance, chosen) => {
    const line = table.insertRow();
    line.insertCell().textContent = text;
    line.insertCell().textContent = chance;
    if (chosen) line.className = "chosen";
  };

  const percent = (share) =>
    share < 0.001 ? "<0.1%" : (100 * share).toFixed(share < 0.0995 ? 1 : 0) + "%";

  const showTip = (token) => {
    if (!tip) {
      tip = document.createElement("div");
      tip.id = "token-tip";
      // Its words are the token's label already: it is for the eyes.
      tip.setAttribute("aria-hidden", "true");
      tip.addEventListener("mouseleave", hideTip);
      (document.querySelector(".gradio-container") || document.body).append(tip);
    }
    shown = token;
    tip.replaceChildren();
    const table = document.createElement("table");
    row(table, "“" + token.textContent.replaceAll("\n", "") + "”", token.dataset.chance, true);
    for (const [text, share] of JSON.parse(token.dataset.likeliest)) {
      row(table, "“" + text + "”", percent(share), false);
    }
    tip.append(table);
    tip.hidden = false;
    const box = token.getClientRects()[0] || token.getBoundingClientRect();
    const below = box.bottom + tip.offsetHeight < window.innerHeight;
    const left = Math.min(box.left, window.innerWidth - tip.offsetWidth - 8);
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = (below ? box.bottom : box.top - tip.offsetHeight) + "px";
  };

  function hideTip() {
    if (tip) tip.hidden = true;
    shown = null;
  }

  const moveTo = (from, to) => {
    if (!to) return;
    for (const each of [from, to]) {
      each.tabIndex = each === to ? 0 : -1;
      each.setAttribute("aria-selected", String(each === to));
    }
    to.focus();
    to.scrollIntoView({ block: "nearest" });
  };

  const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10 };

  // The arrow keys go from tab to tab, as they do elsewhere.
  const switchTab = (event) => {
    const tabs = [...document.querySelectorAll("[role=tab]")].filter((tab) => tab.offsetParent);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const to = tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length];
    to.focus();
    to.click();
  };

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && shown) {
      hideTip();
      return;
    }
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches("[role=tab]")) return switchTab(event);
    const token = tokenOf(event);
    if (!token) return;
    const all = [...token.closest(".tokens").querySelectorAll(".token")];
    const at = all.indexOf(token);
    let to = null;
    if (event.key in STEPS) to = Math.min(all.length - 1, Math.max(0, at + STEPS[event.key]));
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = all.length - 1;
    else return;
    event.preventDefault();
    if (to !== at) moveTo(token, all[to]);
  });

  document.addEventListener("focusin", (event) => {
    const token = tokenOf(event);
    if (!token) return hideTip();
    token.setAttribute("aria-selected", "true");
    showTip(token);
  });
  document.addEventListener("mouseover", (event) => {
    const token = tokenOf(event);
    if (token) showTip(token);
  });
  document.addEventListener("mouseout", (event) => {
    const token = tokenOf(event);
    const into = event.relatedTarget;
    if (token && token !== document.activeElement && !(tip && tip.contains(into))) hideTip();
  });
  // The focus itself scrolls to its token: the tip goes with it, but not with the mouse's.
  const moved = () => (shown && shown === document.activeElement ? showTip(shown) : hideTip());
  document.addEventListener("scroll", moved, { capture: true, passive: true });

  // Dark and light: the system's choice until another one is made, which is remembered.
  const THEME = "omnima-theme";

  // A browser may deny its storage, by an error already where it is named.
  const stored = (use) => {
    try {
      return use(window.localStorage);
    } catch {
      return null;
    }
  };

  window.omnimaTheme = () => {
    const dark = document.body.classList.toggle("dark");
    stored((storage) => storage.setItem(THEME, dark ? "dark" : "light"));
  };

  const remembered = () => {
    const theme = stored((storage) => storage.getItem(THEME));
    if (theme) document.body.classList.toggle("dark", theme === "dark");
  };

  // A text file is read here, in the browser: none is ever sent as a file.
  const say = (text) => {
    const place = document.getElementById("text-file-said");
    if (place) place.textContent = text;
  };

  const read = async (file, most) => {
    if (file.size > most) {
      say(`${file.name} has ${file.size} bytes; at most ${most} are taken here.`);
      return null;
    }
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    } catch {
      say(`${file.name} is not UTF-8: save it as UTF-8 text and open it again.`);
      return null;
    }
  };

  document.addEventListener("change", async (event) => {
    if (event.target.id !== "text-file" || !event.target.files.length) return;
    const file = event.target.files[0];
    const most = Number(event.target.dataset.most);
    const input = event.target;
    const text = await read(file, most);
    input.value = ""; // so that the same file, once mended, can be opened again
    if (text === null) return;
    const area = document.querySelector("#training-text textarea");
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(area, text);
    area.dispatchEvent(new Event("input", { bubbles: true }));
    say(`${file.name} is in the box: ${text.length} characters.`);
  });

  let waiting = false;
  const watch = new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      named();
      follow();
      if (shown && !shown.isConnected) hideTip();
    });
  });

  const begin = () => {
    remembered();
    watch.observe(document.body, { childList: true, subtree: true, characterData: true });
    named();
  };
  if (document.body) begin();
  else document.addEventListener("DOMContentLoaded", begin);
})();
