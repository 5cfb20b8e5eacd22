"use strict";

const find = (selector, within = document) => [...within.querySelectorAll(selector)];
const tools = document.querySelector(".tools");
const claims = find(".claim");
const words = new Map(claims.map((claim) => [claim, claim.textContent.toLowerCase()]));

// Search and filter.
function show() {
  const asked = tools.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const kinds = find("[name=verdict]:checked", tools).map((box) => box.value);
  const paper = tools.elements.paper.value;
  let shown = 0;
  for (const claim of claims) {
    const { verdict, paper: of } = claim.dataset;
    const text = words.get(claim);
    claim.hidden = !(kinds.includes(verdict) && (!paper || paper === of) && asked.every((word) => text.includes(word)));
    shown += !claim.hidden;
  }
  for (const section of find(".paper")) {
    const some = find(".claim:not([hidden])", section).length > 0;
    section.hidden = Boolean(paper) && paper !== section.dataset.paper;
    section.querySelector(".claims").hidden = !some;
    section.querySelector(".none").hidden = some;
  }
  tools.elements.shown.value = `${shown} of ${claims.length}`;
}

function only(paper, verdict) {
  tools.elements.text.value = "";
  tools.elements.paper.value = paper;
  for (const box of find("[name=verdict]", tools)) box.checked = verdict === "all" || box.value === verdict;
  show();
}

tools.addEventListener("input", show);
tools.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    tools.elements.text.focus();
  } else if (event.key === "Escape" && event.target === tools.elements.text) {
    only("", "all");
  }
});

// A number of the summary shows the claims that it counts.
for (const cell of find(".totals tbody td")) {
  if (cell.textContent === "0") continue;
  const name = cell.parentElement.classList.contains("all") ? "" : cell.parentElement.cells[0].textContent;
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: cell.textContent });
  button.setAttribute("aria-label", `show ${cell.textContent} claims: ${name || "every paper"}, ${cell.dataset.count}`);
  button.addEventListener("click", () => {
    only(name, cell.dataset.count);
    document.querySelector("#verdicts").scrollIntoView();
  });
  cell.replaceChildren(button);
}

// A claim's evidence is its figures and their chains, copied from where they stand.
function copied(id) {
  const copy = document.getElementById(id).cloneNode(true);
  copy.removeAttribute("id");
  for (const image of find("img", copy)) image.loading = "eager";
  return copy;
}

for (const evidence of find(".evidence")) {
  evidence.addEventListener("toggle", () => {
    for (const place of find("[data-figure]", evidence)) place.replaceWith(copied(place.dataset.figure));
    const link = evidence.querySelector("[data-chain]");
    if (link && !evidence.querySelector(".figure")) link.parentElement.after(copied(link.dataset.chain));
    link?.removeAttribute("data-chain");
    const chain = evidence.querySelector(".chain");
    if (chain) chain.open = true;
  });
}

// On paper, what was found is told whole.
addEventListener("beforeprint", () => find(".found details").forEach((places) => (places.open = true)));

// A link to a claim that is filtered out shows it; one to a figure opens its chain.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.closest("[hidden]")) only("", "all");
  find(":scope > details.chain", target).forEach((chain) => (chain.open = true));
  target.scrollIntoView();
}

addEventListener("hashchange", reveal);
if (location.hash) reveal();

// Snakemake's report is unpacked when it is asked for; its pictures are those of the page. Its links
// to "#" are buttons, and browsers refuse to follow them in a document that was made here.
const buttons = `<script>addEventListener("click", (event) => {
  if (event.target.closest("a[href='#']")) event.preventDefault();
}, true);<\/script>`;

document.querySelector("#open-report")?.addEventListener("click", async ({ target: button }) => {
  button.disabled = true;
  const packed = Uint8Array.from(atob(document.querySelector("#snakemake-report").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const text = (await new Response(stream).text()).replace(/@@([\w-]+)@@/g, (whole, id) => {
    const image = document.querySelector(`#${CSS.escape(id)} img`);
    return image ? image.src : whole;
  });
  const url = URL.createObjectURL(new Blob([text, buttons], { type: "text/html" }));
  const frame = Object.assign(document.createElement("iframe"), { src: url, title: "Snakemake's report" });
  document.querySelector("#report-frame").replaceChildren(frame);
  Object.assign(document.querySelector("#report-tab"), { href: url, hidden: false });
  button.remove();
  frame.scrollIntoView({ block: "center" });
});
