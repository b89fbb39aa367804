// One image, enlarged, with all that is known of it.
const viewer = byId("viewer"), stage = byId("stage"), layer = byId("layer");
const zoom = {scale: 1, x: 0, y: 0};
const pointers = new Map();
let current = null, hasLabels = true, hasLow = false, hasOthers = false, place = -1;

// position: among the images that are shown; the grid turns with it.
async function openViewer(position) {
  const page = Math.floor(position / PAGE_SIZE);
  if (page !== state.page) await change({page});
  const id = view.ids[position - view.skipped];
  if (id !== undefined) await showImage(id, position);
}

async function showImage(id, position) {
  const image = await imageAt(id);
  place = position;
  current = image;
  state.image = id;
  writeAddress();
  byId("position").textContent = position < 0 ? "not among those shown" : `${asNumber(position + 1)} of ${asNumber(view.total)}`;
  byId("previous").disabled = position <= 0;
  byId("next").disabled = position < 0 || position >= view.total - 1;
  byId("viewer-name").textContent = shown(image.name);
  if (!viewer.open) viewer.showModal(); // before it is drawn: labels are placed by the size that it has
  resetZoom();
  drawImage();
  await showTimeline(image);
}

function drawImage() {
  const image = current, objects = hasLow ? image.objects.filter(object => isOn(object.classId)) : visibleObjects(image);
  layer.replaceChildren(picture(image, objects, hasOthers ? image.others : missingOf(image), {isSmall: false}), element("div", {class: "tags", hidden: !hasLabels}, ...tags(image, objects)));
  byId("toggle-labels").setAttribute("aria-pressed", String(hasLabels));
  byId("toggle-low").setAttribute("aria-pressed", String(hasLow));
  byId("toggle-others").setAttribute("aria-pressed", String(hasOthers));
  byId("viewer-marks").replaceChildren(...markButtons(image.name, mark => markCurrent(mark)));
  byId("viewer-facts").replaceChildren(...factsOf(image));
  placeTags();
}

function tags(image, objects) {
  if (image.failure) return [];
  return objects.filter(object => object.box).map(object => element("span", {class: "tag", style: {background: darkColour(object.classId)},
    "data-x": object.box[0] / image.width, "data-y": object.box[1] / image.height}, `${labelOf(object)} ${asShortScore(object.score)}`));
}

// Labels keep their size while the image is zoomed, so they are placed anew.
function placeTags() {
  const {clientWidth: width, clientHeight: height} = stage;
  const fit = Math.min(width / (current.width || 1), height / (current.height || 1));
  const shownWidth = current.width * fit, shownHeight = current.height * fit;
  for (const tag of layer.querySelectorAll(".tag")) {
    const x = (width - shownWidth) / 2 + tag.dataset.x * shownWidth, y = (height - shownHeight) / 2 + tag.dataset.y * shownHeight;
    tag.style.left = `${Math.max(0, Math.min(x, width - tag.offsetWidth / zoom.scale))}px`;
    tag.style.top = `${y}px`;
    tag.style.transformOrigin = "0 0";
    tag.style.transform = `scale(${1 / zoom.scale}) translateY(${y > 17 ? -100 : 0}%)`;
  }
}

function factsOf(image) {
  const facts = [element("p", {class: "soft"}, image.width ? `${asNumber(image.width)} × ${asNumber(image.height)} pixels` : "not decoded")];
  if (image.failure) facts.push(element("p", {class: "bad"}, `${image.failure[0]}: ${image.failure[1]}`));
  if (image.objects.length || image.others.length) facts.push(objectTable(image));
  else if (!image.failure) facts.push(element("p", {}, "Nothing found, whatever the score."));
  const notes = {frame: number => `Frame ${asNumber(number)} of the video, at ${fileOf(image).time} s.`, pages: count => `It has ${asNumber(count)} pages or frames; the first was looked at.`, damage: text => `Damaged: ${text}`,
    truncated: () => "There may be more objects than the model gives."};
  for (const [name, text] of Object.entries(notes)) if (name in image.notes) facts.push(element("p", {}, text(image.notes[name])));
  if (image.notes.metadata) facts.push(element("dl", {}, ...Object.entries(image.notes.metadata).flatMap(([name, value]) =>
    [element("dt", {}, METADATA[name] ?? name), element("dd", {}, value)])));
  facts.push(element("p", {}, ...placesOf(image).flatMap(({link, name}) => [element("a", {href: link, target: "_blank", rel: "noopener"}, `Open the ${name}`), " "])));
  const address = addressOf(fileOf(image).file);
  if (address !== null) facts.push(element("p", {class: "soft address"}, "Original: ", addressNode(address)));
  return facts;
}

// Unless addresses were signed for it, the page asks nothing of a network and has no key to a bucket: it says where the original is.
function addressNode(address) {
  return /^https?:/i.test(address) ? element("a", {href: address, target: "_blank", rel: "noopener noreferrer"}, address) : element("span", {}, address);
}

const METADATA = {captured_at: "Taken", latitude: "Latitude", longitude: "Longitude", make: "Make", model: "Camera", serial: "Serial number",
  temperature_c: "Degrees Celsius"};

function objectTable(image) {
  const rows = image.objects.map((object, number) => {
    const isLow = object.score < state.score || !isOn(object.classId);
    const swatch = element("span", {class: "swatch", style: {background: darkColour(object.classId), display: "inline-block"}});
    const brighten = on => () => layer.querySelectorAll(`[data-object="${number}"]`).forEach(line => line.classList.toggle("bright", on));
    return element("tr", {class: isLow ? "is-low" : "", onmouseenter: brighten(true), onmouseleave: brighten(false)},
      element("td", {}, swatch, " ", labelOf(object)), element("td", {class: "number"}, (object.score / 10000).toFixed(4)),
      object.box ? element("td", {class: "number"}, sizeOf(object)) : null, REFERENCE ? element("td", {}, verdict(object)?.[1] ?? "") : null);
  });
  rows.push(...missingOf(image).map(other => element("tr", {}, element("td", {}, labelOf(other)), element("td", {class: "number"}, IS_TRUTH ? "" : asScore(other.score)),
    other.box ? element("td", {class: "number"}, sizeOf(other)) : null, element("td", {}, IS_TRUTH ? "missed" : "went"))));
  const heads = [image.objects[0]?.box || image.others[0]?.box ? ["Object", "Score", "Size"] : ["Class", "Score"], REFERENCE ? ["Verdict"] : []].flat();
  return element("table", {}, element("thead", {}, element("tr", {}, ...heads.map(head => element("th", {scope: "col", class: ["Score", "Size"].includes(head) ? "number" : ""}, head)))), element("tbody", {}, ...rows));
}

const sizeOf = ({box}) => `${Math.round(box[2] - box[0])} × ${Math.round(box[3] - box[1])}`;

function markCurrent(mark) {
  setMark(current.name, mark);
  byId("viewer-marks").replaceChildren(...markButtons(current.name, markCurrent));
  showBadge(current);
}

function zoomBy(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const scale = Math.min(40, Math.max(1, zoom.scale * factor)), by = scale / zoom.scale;
  Object.assign(zoom, {scale, x: x - by * (x - zoom.x), y: y - by * (y - zoom.y)});
  if (scale === 1) Object.assign(zoom, {x: 0, y: 0});
  applyZoom();
}

function resetZoom() {
  Object.assign(zoom, {scale: 1, x: 0, y: 0});
  applyZoom();
}

function applyZoom() {
  layer.style.transform = `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})`;
  if (current) placeTags();
}

function toggleLabels() { hasLabels = !hasLabels; drawImage(); }
function toggleLow() { hasLow = !hasLow; drawImage(); }
function toggleOthers() { hasOthers = !hasOthers; drawImage(); }

const VIEWER_KEYS = {
  ArrowLeft: () => place > 0 && openViewer(place - 1),
  ArrowRight: () => place >= 0 && place < view.total - 1 && openViewer(place + 1),
  "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: resetZoom, h: toggleLabels, l: toggleLow, t: () => REFERENCE && toggleOthers(),
};

function buildViewer() {
  const clicks = {previous: VIEWER_KEYS.ArrowLeft, next: VIEWER_KEYS.ArrowRight, close: () => viewer.close(), "zoom-in": VIEWER_KEYS["+"],
    "zoom-out": VIEWER_KEYS["-"], "zoom-reset": resetZoom, "toggle-labels": toggleLabels, "toggle-low": toggleLow, "toggle-others": toggleOthers};
  for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", act);
  viewer.addEventListener("keydown", event => {
    if (!isPlain(event)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, mark = markOfKey(key);
    if (mark !== undefined) markCurrent(mark);
    else if (VIEWER_KEYS[key]) { event.preventDefault(); VIEWER_KEYS[key](); }
  });
  viewer.addEventListener("close", () => {
    byId("grid").querySelector(`[data-image="${state.image}"]`)?.focus();
    state.image = null;
    current = null;
    layer.replaceChildren();
    writeAddress();
  });
  stage.addEventListener("wheel", event => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY);
  }, {passive: false});
  stage.addEventListener("dblclick", event => zoom.scale > 1 ? resetZoom() : zoomBy(3, event.offsetX, event.offsetY));
  stage.addEventListener("pointerdown", event => { stage.setPointerCapture(event.pointerId); pointers.set(event.pointerId, event); });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, event => pointers.delete(event.pointerId));
  stage.addEventListener("pointermove", movePointer);
  addEventListener("resize", () => current && placeTags());
}

// One pointer pans; two also zoom.
function movePointer(event) {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const [other] = [...pointers.values()].filter(pointer => pointer.pointerId !== event.pointerId);
  if (other) {
    const distance = from => Math.hypot(from.clientX - other.clientX, from.clientY - other.clientY);
    const box = stage.getBoundingClientRect();
    zoomBy(distance(event) / Math.max(1, distance(before)), (event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top);
  } else if (zoom.scale > 1) {
    zoom.x += event.clientX - before.clientX;
    zoom.y += event.clientY - before.clientY;
    applyZoom();
  }
  pointers.set(event.pointerId, event);
}
