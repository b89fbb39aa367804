// The data, some thousand images a script. What filters need (facts) stays once it is read. Boxes, sizes and messages
// (details) are read of images that are shown; where there is much of them, those go first that were shown longest ago.
const MOST_DETAIL_BYTES = 16 * 2 ** 20;
const AT_ONCE = 4;

let firstImage = 0;
const CHUNKS = INDEX.chunks.map(([[data, details], images, hits, nearly, failed, extra, missing, moved]) => {
  const first = firstImage;
  firstImage += images;
  return {files: {data, details}, images, hits, nearly, failed, extra, missing, moved, first, facts: null, details: null, used: 0, arriving: {}};
});
const IMAGES = firstImage;
let uses = 0;

const loadData = chunk => chunk.facts ? null : load(chunk, "data");
const loadDetails = chunk => chunk.details ? null : load(chunk, "details");

function load(chunk, part) {
  const path = `${INDEX.data}/${chunk.files[part]}`;
  chunk.arriving[part] ??= new Promise((resolve, reject) => {
    const script = element("script", {src: path, charset: "utf-8"});
    const end = settle => { script.remove(); delete chunk.arriving[part]; settle(); };
    script.onload = () => end(resolve);
    script.onerror = () => end(() => reject(new Error(`${path} cannot be read. It belongs beside this page. If the job has just been finished again, reload the page.`)));
    document.head.append(script);
  });
  return chunk.arriving[part];
}

// Called by the scripts.
window.trtjob = {
  data: (number, data) => { CHUNKS[number].facts = facts(data); },
  details: (number, {sizes, boxes, ...details}) => {
    CHUNKS[number].details = {sizes: unpacked(sizes), boxes: unpacked(boxes), ...details};
    CHUNKS[number].used = ++uses;
    dropDetails();
  },
};

function facts(data) {
  const counts = unpacked(data.counts), offsets = offsetsOf(counts);
  const kinds = new Uint8Array(counts.length); // 0: not failed
  for (const [image, kind] of Object.entries(data.failures)) kinds[image] = 1 + KINDS.indexOf(kind);
  return {
    names: data.names, // one text, with zero bytes between: it takes a third of the memory of many
    offsets, kinds,
    classIds: unpacked(data.class_ids),
    scores: unpacked(data.scores),
    folders: foldersOf(data.names, counts.length),
    reference: REFERENCE && referenceFacts(data),
  };
}

function referenceFacts(data) {
  const partners = unpacked(data.partners), moved = new Uint8Array(partners.length);
  for (const object of data.moved) moved[object] = 1;
  return {partners, moved, offsets: offsetsOf(unpacked(data.other_counts)), classIds: unpacked(data.other_class_ids),
    scores: unpacked(data.other_scores), otherPartners: unpacked(data.other_partners)};
}

function offsetsOf(counts) {
  const offsets = new Uint32Array(counts.length + 1);
  counts.forEach((count, image) => { offsets[image + 1] = offsets[image] + count; });
  return offsets;
}

const FOLDER_NUMBERS = new Map(INDEX.folders.map(([path], number) => [path, number]));

function foldersOf(names, count) {
  const folders = new Uint16Array(count);
  let last = null, number = 0;
  eachName(names, (image, start, end) => {
    const folder = names.slice(start, Math.max(start, names.lastIndexOf("/", end - 1)));
    if (folder !== last) number = FOLDER_NUMBERS.get(listed(last = folder));
    folders[image] = number;
  });
  return folders;
}

// Call with the number of each name, and where it begins and ends in the text of all.
function eachName(names, act) {
  for (let image = 0, start = 0; start <= names.length; image++) {
    const zero = names.indexOf("\0", start), end = zero < 0 ? names.length : zero;
    act(image, start, end);
    start = end + 1;
  }
}

// Deep folders are counted as the one that they lie in.
function listed(folder) {
  while (folder && !FOLDER_NUMBERS.has(folder)) folder = folder.slice(0, Math.max(0, folder.lastIndexOf("/")));
  return folder;
}

const NUMBERS = {B: Uint8Array, H: Uint16Array, I: Uint32Array, f: Float32Array};

function unpacked([type, base64]) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return new NUMBERS[type](bytes.buffer);
}

function dropDetails() {
  const held = CHUNKS.filter(chunk => chunk.details).sort((a, b) => b.used - a.used);
  let bytes = 0;
  for (const [place, chunk] of held.entries()) {
    bytes += chunk.details.sizes.byteLength + chunk.details.boxes.byteLength;
    if (bytes > MOST_DETAIL_BYTES && place > 0) chunk.details = null;
  }
}

function chunkOf(id) {
  let low = 0, high = CHUNKS.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (CHUNKS[middle].first <= id) low = middle; else high = middle - 1;
  }
  return CHUNKS[low];
}

const namesOf = chunk => chunk.facts.names.split("\0");

// All that is known of an image. Reads its chunk again where its details were dropped.
async function imageAt(id) {
  const chunk = chunkOf(id), at = id - chunk.first;
  await loadDetails(chunk);
  chunk.used = ++uses;
  const {facts, details} = chunk, objects = [];
  for (let object = facts.offsets[at]; object < facts.offsets[at + 1]; object++) {
    const box = details.boxes.length ? details.boxes.slice(4 * object, 4 * object + 4) : null;
    const judged = REFERENCE && {partner: facts.reference.partners[object], isMoved: Boolean(facts.reference.moved[object])};
    objects.push({classId: facts.classIds[object], score: facts.scores[object], box, ...judged, ...details.shapes[object]});
  }
  const [width, height] = details.sizes.slice(2 * at, 2 * at + 2);
  return {id, name: namesOf(chunk)[at], width, height, objects, others: REFERENCE ? othersOf(facts.reference, details, at) : [], failure: facts.kinds[at] ? [KINDS[facts.kinds[at] - 1], details.messages[at]] : null, notes: details.notes[at] ?? {}};
}

function othersOf({offsets, classIds, scores, otherPartners}, details, at) {
  const others = [];
  for (let other = offsets[at]; other < offsets[at + 1]; other++) {
    others.push({classId: classIds[other], score: scores[other], partner: otherPartners[other], box: details.other_boxes[other]});
  }
  return others;
}
