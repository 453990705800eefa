// What the pages do besides showing: colours, times of here, keys. Without it, all can be read and reached.
"use strict";
(() => {
  const root = document.documentElement;

  // Colours: the system's, light, dark, and round again.
  const themes = ["system", "light", "dark"];
  const signs = { system: "◐", light: "○", dark: "●" };
  const button = document.querySelector("[data-switch-theme]");
  const showTheme = () => {
    const theme = root.dataset.theme || "system";
    button.textContent = signs[theme];
    const said = theme === "system" ? "as the system has them" : theme;
    button.setAttribute("aria-label", `Colours: ${said}`);
    button.title = `Colours: ${said}`;
  };
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme || "system") + 1) % themes.length];
    if (next === "system") {
      delete root.dataset.theme;
      localStorage.removeItem("theme");
    } else {
      root.dataset.theme = next;
      localStorage.setItem("theme", next);
    }
    showTheme();
    document.dispatchEvent(new Event("offhook:theme"));
  });
  button.hidden = false;
  showTheme();

  // A small screen has room for some of the pages' names: have that of the page that is open among them.
  const nav = document.querySelector("header nav");
  const current = nav?.querySelector("[aria-current]");
  if (current) nav.scrollLeft = current.offsetLeft - nav.offsetLeft - (nav.clientWidth - current.offsetWidth) / 2;

  // Times are written in UTC by the server and shown as this browser's.
  const two = (number) => String(number).padStart(2, "0");
  const local = (moment) => {
    const clock = `${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`;
    if (moment.toDateString() === new Date().toDateString()) return clock;
    return `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())} ${clock}`;
  };
  const localize = (within) => {
    for (const time of within.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      if (!time.title) time.title = time.textContent;
      const text = local(moment);
      if (time.textContent !== text) time.textContent = text;
    }
  };
  localize(document);
  document.addEventListener("htmx:after:swap", () => localize(document));

  // How long a call has been answered goes on between two looks at the node.
  const tick = () => {
    for (const element of document.querySelectorAll("[data-since]")) {
      const seconds = Math.max(0, Math.floor(Date.now() / 1000 - Number(element.dataset.since)));
      const hours = Math.floor(seconds / 3600);
      const minutes = Math.floor(seconds / 60) % 60;
      element.textContent = `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(seconds % 60)}`;
    }
  };
  setInterval(tick, 1000);

  // Keys: / to search, j and k along a list, Enter follows the link by itself.
  const isTyping = (element) => element.closest("input, textarea, select, [contenteditable]") !== null;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && isTyping(event.target)) event.target.blur();
    if (isTyping(event.target)) return;
    if (event.key === "/") {
      const search = document.querySelector("[data-search]");
      if (search) {
        event.preventDefault();
        search.focus();
        search.select();
      }
    } else if (event.key === "j" || event.key === "k") {
      const scope = event.target.closest("[data-list]") || document;
      const items = [...scope.querySelectorAll("[data-item]")].filter((item) => item.getClientRects().length);
      if (!items.length) return;
      const at = items.indexOf(document.activeElement);
      const next = event.key === "j" ? Math.min(at + 1, items.length - 1) : Math.max(at - 1, 0);
      items[next].focus();
      items[next].scrollIntoView({ block: "nearest" });
      event.preventDefault();
    }
  });

  // What is to be copied says so, and that it was. Browsers let pages copy over TLS and on this machine alone.
  const offerCopies = (within) => {
    for (const copy of within.querySelectorAll("[data-copy]")) copy.hidden = false;
  };
  offerCopies(document);
  document.addEventListener("htmx:after:swap", () => offerCopies(document));
  const select = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (!copy) return;
    const text = copy.textContent;
    try {
      await navigator.clipboard.writeText(copy.dataset.copy);
      copy.textContent = "Copied";
    } catch {
      const beside = copy.parentElement.querySelector("pre, code");
      if (beside) select(beside);
      copy.textContent = "Selected";
    }
    setTimeout(() => (copy.textContent = text), 1500);
  });
})();
