// An image with its boxes over it: the original where it can be reached, else the annotated copy, which has its own.
const isOn = id => !state.classes || state.classes.has(id);

function visibleObjects(image) {
  const objects = IS_CLASSIFIER ? image.objects.slice(0, 1) : image.objects;
  return objects.filter(object => object.score >= state.score && isOn(object.classId));
}

function copyOf(image) {
  if (image.notes.copy) return image.notes.copy;
  const [suffix] = /\.[^./]*$/.exec(image.name.toLowerCase()) ?? [""];
  return `annotated/${image.name}${INDEX.copied_suffixes.includes(suffix) ? "" : ".jpg"}`;
}

function hasCopy(image) {
  if (INDEX.annotate === "all" || IS_CLASSIFIER) return INDEX.annotate !== "none";
  return INDEX.annotate === "hits" && image.objects.some(object => object.score >= FIRST.score);
}

function placesOf(image) {
  const places = [];
  if (INDEX.originals !== null) places.push({link: `${INDEX.originals}/${linkTo(image.name)}`, isDrawn: false, name: "original"});
  if (hasCopy(image)) places.push({link: linkTo(copyOf(image)), isDrawn: !IS_CLASSIFIER, name: "annotated copy"});
  return places;
}

function picture(image, objects, {lazy}) {
  if (image.failure) return element("div", {class: "message"}, element("b", {}, image.failure[0]), element("span", {}, image.failure[1]));
  const node = element("div", {class: "picture"}, boxes(image, objects));
  const places = placesOf(image);
  const next = () => {
    node.querySelector("img")?.remove();
    const place = places.shift();
    node.classList.toggle("drawn", Boolean(place?.isDrawn));
    node.prepend(place ? element("img", {alt: "", loading: lazy ? "lazy" : "eager", decoding: "async", draggable: "false", onerror: next, src: place.link})
      : element("div", {class: "none"}, "This browser cannot show the image, or it is not here"));
  };
  next();
  return node;
}

// On a classifier's image there is nothing to draw. Each box is drawn twice, dark below bright, to be seen on any ground.
function boxes(image, objects) {
  const svg = shape("svg", {viewBox: `0 0 ${image.width || 1} ${image.height || 1}`, preserveAspectRatio: "xMidYMid meet", "aria-hidden": "true"});
  for (const object of objects.filter(each => each.box)) {
    const [x1, y1, x2, y2] = object.box;
    const low = object.score < state.score ? " low" : "";
    const place = {x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1)};
    svg.append(shape("rect", {class: "shape under", ...place}));
    svg.append(shape("rect", {class: `shape over${low}`, stroke: brightColour(object.classId), "data-object": image.objects.indexOf(object), ...place}));
  }
  return svg;
}

const labelOf = object => LABELS.get(object.classId) ?? `class ${object.classId}`;

function chip(object) {
  return element("span", {class: "chip", style: {background: darkColour(object.classId)}, title: shown(labelOf(object))}, `${labelOf(object)} ${asScore(object.score)}`);
}

// "2 dog, 1 cat", for those who hear the page.
function counted(objects) {
  const counts = new Map();
  for (const object of objects) counts.set(labelOf(object), 1 + (counts.get(labelOf(object)) ?? 0));
  return [...counts].map(([label, count]) => IS_CLASSIFIER ? label : `${count} ${label}`).join(", ");
}
