// Texts whose contrast with the ground under them is under WCAG's 4.5 to 1 (AA).
const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);

function ground(element) {
  for (let e = element; e; e = e.parentElement) {
    const colour = numbers(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
}

function isFaint(e) {
  const hasText = [...e.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  if (!hasText || !e.getClientRects().length || e.disabled || e.matches("script, .new *")) return false;
  const style = getComputedStyle(e), colour = e instanceof SVGElement ? style.fill : style.color;
  const [brighter, darker] = [light(numbers(colour)), light(ground(e))].sort((a, b) => b - a);
  return (brighter + 0.05) / (darker + 0.05) < 4.5;
}

return [...document.querySelectorAll("body *")].filter(isFaint).map((e) => `${e.tagName} ${e.id} ${e.textContent.slice(0, 30)}`);
