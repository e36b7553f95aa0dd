// The pages work without this script. It updates the changing parts of an open page.
"use strict";

for (const part of document.querySelectorAll("[data-live]")) {
  const source = new EventSource(part.dataset.live);
  source.addEventListener("part", (event) => { part.innerHTML = event.data; });
  source.addEventListener("done", () => {
    source.close();
    if (part.dataset.reload) location.reload();
  });
}

for (const page of document.querySelectorAll("[data-goto]")) location.replace(page.dataset.goto);

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  });
}

// The samples follow the expression as it is typed.
for (const box of document.querySelectorAll("textarea[data-samples]")) {
  const samples = document.getElementById("samples");
  let timer, request;
  box.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      request?.abort();
      request = new AbortController();
      samples.setAttribute("aria-busy", "true");
      try {
        const answer = await fetch(box.dataset.samples + "?" + new URLSearchParams({ jq: box.value }), { signal: request.signal });
        samples.innerHTML = await answer.text();
        samples.removeAttribute("aria-busy");
      } catch (error) {
        if (error.name !== "AbortError") throw error;
      }
    }, 250);
  });
}

// A choice of a filter applies at once.
for (const select of document.querySelectorAll("form.filters select")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}
