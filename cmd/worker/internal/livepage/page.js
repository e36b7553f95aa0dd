"use strict";
// The server escapes every text, and the page's policy runs no script but this one.
const { number, max } = document.body.dataset;
const [rows, counts, state] = ["rows", "counts", "state"].map((id) => document.getElementById(id));
const live = new EventSource("live?after=" + number);
live.onopen = () => { state.textContent = "live"; };
live.onerror = () => { state.textContent = "not connected: the worker has stopped, or too many pages are open"; };
live.addEventListener("counts", (e) => { counts.innerHTML = e.data; });
live.addEventListener("reload", () => location.reload());
live.addEventListener("row", (e) => {
  rows.insertAdjacentHTML("afterbegin", e.data);
  while (rows.children.length > max) rows.lastElementChild.remove();
});
