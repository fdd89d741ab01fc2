// What somebody who listens to the page would stumble over.
const found = [], all = (selector) => [...document.querySelectorAll(selector)];
const report = (what, elements) => elements.forEach((e) => found.push(`${what}: ${e.tagName} ${e.id} ${e.className}`));
const unnamed = (e) => !e.ariaLabel && !document.getElementById(e.getAttribute("aria-labelledby"))?.textContent;

report("no label", all("input, select, textarea").filter((e) => !e.labels.length));
report("no text", all("button").filter((e) => !e.textContent.trim()));
report("no text alternative", all("svg").filter((e) => e.role !== "img" || unnamed(e)));
report("no caption", all("table").filter((e) => !e.caption?.textContent));
report("no scope", all("th").filter((e) => !e.scope));
report("no name", all("main > section, [role=region], [tabindex]").filter(unnamed));
report("an id that is there twice", all("[id]").filter((e) => document.getElementById(e.id) !== e));
const levels = all("h1, h2, h3, h4").map((e) => Number(e.tagName[1]));
report("a heading that skips a level", all("h1, h2, h3, h4").filter((e, i) => i && levels[i] > levels[i - 1] + 1));
for (const one of ["header", "main", "h1"]) if (all(one).length !== 1) found.push(`not one ${one}`);
if (!document.documentElement.lang || !document.title) found.push("no language or no title");
return found;
