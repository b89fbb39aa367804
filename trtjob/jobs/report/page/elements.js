// Names, labels and messages may hold anything: they become text nodes and attributes here, never markup.
const byId = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, set] of Object.entries(value)) node.style.setProperty(property, set);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter(child => child !== null).map(child => child instanceof Node ? child : shown(child)));
  return node;
}

// Bytes of a name that are no UTF-8 are lone surrogates in the data; people see question marks.
function shown(text) {
  return String(text).replace(/[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]/g, pair => pair.length === 2 ? pair : "\ufffd");
}

// The way to a file by its name, byte for byte.
function linkTo(path) {
  return path.split("/").map(part => part.replace(/[\ud800-\udbff][\udc00-\udfff]|[^]/g, encoded)).join("/");
}

function encoded(character) {
  const code = character.charCodeAt(0);
  if (character.length === 1 && code >= 0xdc80 && code <= 0xdcff) return `%${(code - 0xdc00).toString(16)}`;
  if (character.length === 1 && code >= 0xd800 && code <= 0xdfff) return "%3f";
  return encodeURIComponent(character);
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], {type}));
  element("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// No spreadsheet may take a name for a formula.
function csvCell(value) {
  const text = shown(value);
  const safe = /^ *[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(text) && typeof value === "string" ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

const csv = rows => rows.map(row => row.map(csvCell).join(",") + "\n").join("");
