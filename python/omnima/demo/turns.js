// What can be done with what was said: copy a turn or all of them, save them, edit one's own.
(() => {
  "use strict";

  // Read out, and seen on the button itself.
  let spoken = null;
  const say = (text) => {
    if (!spoken) {
      spoken = document.createElement("p");
      spoken.id = "turns-said";
      spoken.className = "sr-only";
      spoken.setAttribute("role", "status");
      (document.querySelector(".gradio-container") || document.body).append(spoken);
    }
    // The same words twice are told twice only if they were gone in between.
    spoken.textContent = "";
    setTimeout(() => (spoken.textContent = text), 50);
  };

  const flash = (button, text) => {
    if (button.dataset.label === undefined) button.dataset.label = button.textContent;
    button.textContent = text;
    clearTimeout(Number(button.dataset.timer));
    button.dataset.timer = setTimeout(() => (button.textContent = button.dataset.label), 2000);
  };

  // An older browser, or one that was told to deny the clipboard, may still copy what is marked.
  const copyMarked = (text) => {
    const area = document.createElement("textarea");
    const before = document.activeElement;
    area.value = text;
    area.className = "sr-only";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (before) before.focus();
    return done;
  };

  const copy = async (button, text, what) => {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      done = copyMarked(text);
    }
    flash(button, done ? "Copied" : "Not copied");
    say(done ? `${what} is copied.` : "The browser does not let this page copy: mark the text.");
  };

  // A turn's text is its first paragraph of this kind; its tokens are the same text once more.
  const textOf = (turn) => {
    const said = turn.querySelector(".text, p.said");
    return said && !said.classList.contains("empty") ? said.textContent : "";
  };

  const conversation = (kind) =>
    [...document.querySelectorAll(`[id^=${kind}-log-]`)]
      .map((log) => {
        const turns = [...log.querySelectorAll(".history .turn")];
        return turns
          .map((turn) => `## ${turn.getAttribute("aria-label")}\n\n${textOf(turn)}\n`)
          .join("\n");
      })
      .filter(Boolean)
      .join("\n---\n\n");

  window.omnimaConversation = (kind, what) => {
    const button = document.getElementById(`${kind}-${what}`);
    const text = conversation(kind);
    if (!text) {
      flash(button, "Nothing yet");
      return say("Nothing has been said yet.");
    }
    if (what === "copy") return copy(button, text, "The conversation");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/markdown;charset=utf-8" }));
    link.download = "conversation.md";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    flash(button, "Saved");
    say("The conversation is saved as conversation.md.");
  };

  const button = (label, kind) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = `act ${kind}`;
    made.textContent = label;
    return made;
  };

  const resize = (area) => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 4}px`;
  };

  const close = (turn) => {
    const editor = turn.querySelector(".editor");
    if (!editor) return;
    editor.remove();
    turn.classList.remove("edited");
    turn.querySelector(".act.edit").focus();
  };

  const send = (turn) => {
    const area = turn.querySelector(".editor textarea");
    if (!area.value.trim()) {
      say("Write a message first.");
      return area.focus();
    }
    const number = Number(turn.querySelector(".act.edit").dataset.number);
    const detail = { number, text: area.value };
    turn.dispatchEvent(new CustomEvent("omnima-edit", { detail, bubbles: true }));
    // The turn is drawn anew and takes the focus with it: the next message is written below.
    const kind = turn.closest(".log").id.split("-")[0];
    document.querySelector(`#${kind}-message textarea`).focus();
  };

  const open = (turn) => {
    if (turn.querySelector(".editor")) return;
    const editor = document.createElement("div");
    editor.className = "editor";
    const area = document.createElement("textarea");
    area.value = textOf(turn);
    area.setAttribute("aria-label", "Edit your message; what followed it leaves");
    area.rows = 1;
    const hint = document.createElement("p");
    hint.className = "hint";
    hint.textContent = "Enter sends; what followed this message leaves. Escape keeps all as it is.";
    const buttons = document.createElement("p");
    buttons.append(button("Send changes", "send"), button("Cancel", "cancel"));
    editor.append(area, hint, buttons);
    turn.append(editor);
    turn.classList.add("edited");
    area.addEventListener("input", () => resize(area));
    resize(area);
    area.focus();
  };

  document.addEventListener("click", (event) => {
    const pressed = event.target instanceof Element ? event.target.closest(".turn .act") : null;
    if (!pressed) return;
    const turn = pressed.closest(".turn");
    const own = turn.matches(".user");
    if (pressed.matches(".copy")) copy(pressed, textOf(turn), own ? "The message" : "The answer");
    else if (pressed.matches(".edit")) open(turn);
    else if (pressed.matches(".send")) send(turn);
    else if (pressed.matches(".cancel")) close(turn);
  });

  document.addEventListener("keydown", (event) => {
    const area = event.target instanceof Element ? event.target.closest(".editor") : null;
    if (!area || event.isComposing) return;
    const turn = area.closest(".turn");
    if (event.key === "Escape") close(turn);
    else if (event.key === "Enter" && !event.shiftKey && event.target.matches("textarea")) {
      event.preventDefault();
      send(turn);
    }
  });
})();
