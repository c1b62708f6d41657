"use strict";
document.querySelectorAll("div.table").forEach(function (box) {
  const body = box.querySelector("tbody");
  const rows = Array.from(body.rows);
  const heads = Array.from(box.querySelectorAll("th"));
  heads.forEach(function (head, column) {
    head.querySelector("button").addEventListener("click", function () {
      const turn = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", turn < 0 ? "descending" : "ascending");
      const value = function (row) {
        const cell = row.cells[column];
        return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
      };
      const sorted = rows.slice().sort(function (one, other) {
        const a = value(one), b = value(other);
        if (a !== null && b !== null) return turn * (a - b);
        if (a !== null || b !== null) return a === null ? 1 : -1; // what has no value stands last
        const text = [one, other].map(function (row) { return row.cells[column].textContent.trim(); });
        return turn * text[0].localeCompare(text[1], undefined, {numeric: true});
      });
      body.append.apply(body, sorted);
    });
  });
  const filter = box.querySelector("input[type=search]");
  if (!filter) return;
  const shown = box.querySelector(".shown");
  filter.addEventListener("input", function () {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach(function (row) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(function (word) { return text.includes(word); });
      count += !row.hidden;
    });
    shown.textContent = words.length ? count + " of " + rows.length : "";
  });
});
