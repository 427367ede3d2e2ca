"use strict";
(() => {
  const list = document.getElementById("list");
  const items = [...list.children];
  const [find, kind, order, count] = ["find", "kind", "order", "count"].map((id) => document.getElementById(id));
  const said = items.map((item) => item.querySelector("summary").textContent.toLowerCase());

  function show() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    items.forEach((item, place) => {
      const kinds = item.firstElementChild.dataset.kind.split(" ");
      item.hidden = !(words.every((word) => said[place].includes(word)) && (!kind.value || kinds.includes(kind.value)));
      shown += !item.hidden;
    });
    count.textContent = `${shown} of ${items.length} queries`;
  }

  function sort() {
    list.append(...(order.value === "gain" ? items : [...items].reverse()));
  }

  function openNamed() {
    const named = document.getElementById(location.hash.slice(1));
    if (named instanceof HTMLDetailsElement) {
      named.open = true;
      named.parentElement.hidden = false;
      named.scrollIntoView();
    }
  }

  find.addEventListener("input", show);
  kind.addEventListener("change", show);
  order.addEventListener("change", sort);
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", openNamed);
  document.getElementById("controls").hidden = false;
  show();
  openNamed();
})();
