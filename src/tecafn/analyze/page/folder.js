"use strict";
(() => {
  const list = document.getElementById("ranks");
  const buttons = [...document.querySelectorAll("[data-by]")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const by = button.dataset.by;
      const compare = by === "file"
        ? (a, b) => a.dataset.file.localeCompare(b.dataset.file)
        : (a, b) => Number(a.dataset[by]) - Number(b.dataset[by]);
      list.replaceChildren(...[...list.children].sort(compare));
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    });
  }
  document.documentElement.dataset.ready = "yes";
})();
