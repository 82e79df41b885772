// Comfort only: the page is complete without this.
"use strict";

const contents = document.querySelector(".contents");
const wide = window.matchMedia("(min-width: 62rem)");
const foldContents = () => {
  contents.open = wide.matches;
};
foldContents();
wide.addEventListener("change", foldContents);
contents.addEventListener("click", (event) => {
  if (!wide.matches && event.target.closest("a")) {
    contents.open = false;
  }
});

const filter = document.createElement("input");
filter.type = "search";
filter.placeholder = "Filter";
filter.setAttribute("aria-label", "Filter the contents");
filter.addEventListener("input", () => {
  const wanted = filter.value.trim().toLowerCase();
  for (const item of contents.querySelectorAll("li")) {
    item.hidden = !item.textContent.toLowerCase().includes(wanted);
  }
});
contents.querySelector("nav").prepend(filter);

for (const figure of document.querySelectorAll("figure")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(figure.querySelector("code").textContent);
    button.textContent = "Copied";
    window.setTimeout(() => {
      button.textContent = "Copy";
    }, 1500);
  });
  figure.querySelector("figcaption").append(button);
}

const links = new Map();
for (const link of contents.querySelectorAll('li a[href^="#"]')) {
  links.set(link.hash.slice(1), link);
}
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        contents.querySelector("[aria-current]")?.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "location");
      }
    }
  },
  { rootMargin: "-15% 0px -80% 0px" },
);
for (const article of document.querySelectorAll("article[id]")) {
  watcher.observe(article);
}
