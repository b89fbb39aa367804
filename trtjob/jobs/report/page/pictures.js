// An image with its boxes over it: the original where it can be reached, else the annotated copy, which has its own. Among many, the
// thumbnail comes first.
const isOn = id => !state.classes || state.classes.has(id);

function visibleObjects(image) {
  const objects = HAS_ONE ? image.objects.slice(0, 1) : image.objects;
  return objects.filter(object => object.score >= state.score && isOn(object.classId));
}

// What an image without a hit nearly had.
function nearlyVisible(image) {
  const objects = HAS_ONE ? image.objects.slice(0, 1) : image.objects;
  return objects.filter(object => object.score < state.score && object.score >= state.score - INDEX.nearly && isOn(object.classId));
}

function copyOf(image) {
  if (image.notes.copy) return image.notes.copy;
  const [suffix] = /\.[^./]*$/.exec(image.name.toLowerCase()) ?? [""];
  return `annotated/${image.name}${INDEX.copied_suffixes.includes(suffix) ? "" : ".jpg"}`;
}

function hasCopy(image) {
  if (INDEX.annotate === "all" || HAS_ONE) return INDEX.annotate !== "none";
  return INDEX.annotate === "hits" && image.objects.some(object => object.score >= INDEX.conf * 10000);
}

// The file of an image, and which part of that it is: a page, or the frame at a time.
function fileOf({name}) {
  const frame = INDEX.has_frames && /^(.+)#t=(\d+\.\d+)$/s.exec(name), page = INDEX.has_pages && /^(.+)#([1-9]\d*)$/s.exec(name);
  if (frame) return {file: frame[1], time: frame[2]};
  return page ? {file: page[1], page: page[2]} : {file: name};
}

// The first of the places in which a file lies, and its name below that.
function partOf(file, places) {
  for (const [part, place] of Object.entries(places)) {
    if (part === "") return [place, file];
    if (file.startsWith(`${part}/`)) return [place, file.slice(part.length + 1)];
  }
  return [null, file];
}

// The way to a file of the source; null where there is none from here.
function originalOf(file) {
  const [link, name] = partOf(file, INDEX.originals);
  return link && `${link}/${linkTo(name)}`;
}

// Where a file of the source is, if that is in a bucket or on the web.
function addressOf(file) {
  const [address, name] = partOf(file, INDEX.addresses);
  return address && `${address}/${name}`;
}

function thumbnailOf(image) {
  return linkTo(image.notes.thumbnail ?? `${INDEX.thumbnails}/${image.name}.jpg`);
}

// What shows an image, the best first. Of a file a browser shows the first page alone, and a frame of a video not to the last one.
function placesOf(image) {
  const {file, page, time} = fileOf(image), original = image.notes.address ?? originalOf(file);
  const copy = hasCopy(image) && {link: linkTo(copyOf(image)), isDrawn: !IS_CLASSIFIER, name: "annotated copy"};
  const name = time ? "video" : page ? "file" : "original";
  const whole = original !== null && {link: time ? `${original}#t=${time}` : original, isDrawn: false, name, isVideo: Boolean(time), isOther: Boolean(page)};
  const drawn = time && INDEX.has_video_copies && {link: `${linkTo(`annotated/${file}${/\.(mp4|m4v|mov|mkv)$/i.test(file) ? "" : ".mkv"}`)}#t=${time}`, name: "annotated video", isOther: true};
  return (time ? [copy, whole, drawn] : [whole, copy]).filter(Boolean);
}

// others: the objects of the reference that are drawn, too.
function picture(image, objects, others, {isSmall}) {
  if (image.failure) return element("div", {class: "message"}, element("b", {}, image.failure[0]), " ", element("span", {}, image.failure[1]));
  const node = element("div", {class: "picture"}, maskLayer(image, objects, {isSmall}), boxes(image, objects, others));
  const places = placesOf(image).filter(place => !place.isOther), thumbnail = INDEX.thumbnails && {link: thumbnailOf(image), isDrawn: false};
  if (thumbnail) places.splice(isSmall ? 0 : places.length, 0, thumbnail);
  const next = () => {
    node.querySelector("img, video")?.remove();
    const place = places.shift();
    node.classList.toggle("drawn", Boolean(place?.isDrawn));
    node.prepend(place?.isVideo ? element("video", {muted: true, preload: "metadata", onerror: next, src: place.link})
      : place ? element("img", {alt: "", loading: isSmall ? "lazy" : "eager", decoding: "async", draggable: "false", onerror: next, src: place.link})
      : element("div", {class: "none"}, "This browser cannot show the image, or it is not here"));
  };
  next();
  return node;
}

// Each line is drawn twice, dark below bright, to be seen on any ground.
function boxes(image, objects, others) {
  const svg = shape("svg", {viewBox: `0 0 ${image.width || 1} ${image.height || 1}`, preserveAspectRatio: "xMidYMid meet", "aria-hidden": "true"});
  for (const object of objects.filter(each => each.box)) {
    const low = (object.score < state.score ? " low" : "") + (isMeant(object) ? "" : " faint");
    for (const [tag, place] of outlines(object)) {
      svg.append(shape(tag, {class: isMeant(object) ? "shape under" : "shape under faint", ...place}));
      svg.append(shape(tag, {class: `shape over${low}`, stroke: brightColour(object.classId), "data-object": image.objects.indexOf(object), ...place}));
    }
  }
  for (const other of others.filter(each => each.box)) {
    const [tag, place] = outlines(other)[0];
    svg.append(shape(tag, {class: "shape under", ...place}), shape(tag, {class: "shape over other", stroke: brightColour(other.classId), ...place}));
  }
  return svg;
}

const SEEN = 0.5; // a keypoint that is surer than this to be seen is drawn

// What is drawn of an object: its outline as exact as it is known, and its keypoints, joined.
function outlines({box: [x1, y1, x2, y2], polygons, corners, keypoints}) {
  const pairs = numbers => numbers.map((number, at) => at % 2 ? number : `${at ? " " : ""}${number},`).join("");
  const found = [];
  if (polygons) for (const outline of polygons) found.push(["polygon", {points: pairs(outline)}]);
  else if (corners) found.push(["polygon", {points: pairs(corners.flat())}]);
  else found.push(["rect", {x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1)}]);
  const seen = (keypoints ?? []).map(([, , visibility]) => visibility > SEEN);
  for (const [a, b] of INDEX.skeleton) {
    if (seen[a] && seen[b]) found.push(["line", {x1: keypoints[a][0], y1: keypoints[a][1], x2: keypoints[b][0], y2: keypoints[b][1]}]);
  }
  // A line without length and with a round end is a dot that keeps its size.
  (keypoints ?? []).forEach(([x, y], at) => seen[at] && found.push(["line", {x1: x, y1: y, x2: x, y2: y, "data-keypoint": at}]));
  return found;
}

const labelOf = object => LABELS.get(object.classId) ?? `class ${object.classId}`;

function chip(object) {
  const isLow = object.score < state.score;
  const [sign, word] = verdict(object) ?? ["", ""], what = `${labelOf(object)} ${asShortScore(object.score)}`;
  return element("span", {class: isLow ? "chip is-low" : "chip", style: isLow ? {} : {background: darkColour(object.classId)}, title: shown(word ? `${what}: ${word}` : labelOf(object))},
    sign ? `${sign} ${what}` : what);
}

// "2 dog, 1 cat", for those who hear the page.
function counted(objects) {
  const counts = new Map();
  for (const object of objects) counts.set(labelOf(object), 1 + (counts.get(labelOf(object)) ?? 0));
  return [...counts].map(([label, count]) => IS_CLASSIFIER ? label : `${count} ${label}`).join(", ");
}
