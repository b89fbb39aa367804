// Which images are shown, in which order, and how many there are of everything.
const FEW_CHUNKS = 4;

// Whether the counts of the index answer: then only those chunks are read that a page shows.
function isCounted() {
  return CHUNKS.length > FEW_CHUNKS && state.score === FIRST.score && !state.classes && !state.search
    && state.folder === null && state.kind === null && state.sort === "name";
}

const COUNTS = {hits: c => c.hits, failed: c => c.failed, nearly: c => c.nearly, all: c => c.images, empty: c => c.images - c.hits - c.failed,
  extra: c => c.extra, missing: c => c.missing, moved: c => c.moved};
const total = tab => CHUNKS.reduce((sum, chunk) => sum + COUNTS[tab](chunk), 0);

// The chunks that hold a page, and how many images of the tab lie before them.
function chunksOfPage() {
  const from = state.page * PAGE_SIZE, wanted = [];
  let before = 0, skipped = 0;
  for (const chunk of CHUNKS) {
    const count = COUNTS[state.tab](chunk);
    if (before + count > from && before < from + PAGE_SIZE && count) wanted.push(chunk);
    else if (!wanted.length) skipped += count;
    before += count;
  }
  return {wanted, skipped};
}

function emptyCounts() {
  return {tabs: Object.fromEntries(Object.keys(TABS).map(tab => [tab, 0])), objects: [0, 0, 0, 0], classes: new Uint32Array(CLASS_COUNT), histogram: new Uint32Array(101),
    folders: new Uint32Array(INDEX.folders.length), kinds: new Uint32Array(KINDS.length)};
}

function indexCounts() {
  const counts = emptyCounts();
  for (const tab of Object.keys(TABS)) counts.tabs[tab] = total(tab);
  for (const [id, , count] of INDEX.labels) counts.classes[id] = count;
  counts.histogram.set(INDEX.histogram);
  counts.folders.set(INDEX.folders.map(([, images, hits, failed]) => ({hits, failed, all: images, empty: images - hits - failed})[state.tab] ?? images));
  counts.objects = REFERENCE && REFERENCE.objects;
  counts.kinds.set(KINDS.map(kind => INDEX.summary.failures[kind]));
  return counts;
}

// Whether an object's partner counts, too. What is not judged has one that always does.
const isThere = partner => partner > 0 && partner >= state.score;
const NOT_JUDGED = 20000;

// How many objects of an image are more than in the reference, are missing, have moved, and are in both. end: of its objects.
const differing = {extra: 0, missing: 0, moved: 0, same: 0};

function differ({scores, classIds, offsets, reference}, image, end, isOn) {
  Object.assign(differing, {extra: 0, missing: 0, moved: 0, same: 0});
  for (let object = offsets[image]; object < end; object++) {
    if (scores[object] < state.score || !isOn[classIds[object]]) continue;
    const partner = reference.partners[object];
    if (!isThere(partner)) differing.extra++;
    else if (partner !== NOT_JUDGED) { differing.same++; differing.moved += reference.moved[object]; }
  }
  for (let other = reference.offsets[image]; other < reference.offsets[image + 1]; other++) {
    if (reference.scores[other] >= state.score && isOn[reference.classIds[other]] && !isThere(reference.otherPartners[other])) differing.missing++;
  }
}

// Which of a chunk's images have a text in their names: ones among zeros.
function matching({names, kinds}, search) {
  const found = new Uint8Array(kinds.length), text = names.toLowerCase();
  let hit = text.indexOf(search);
  eachName(text, (image, start, end) => {
    if (hit >= 0 && hit < start) hit = text.indexOf(search, start);
    found[image] = Number(hit >= 0 && hit + search.length <= end);
  });
  return found;
}

// Millions of numbers, in memory that each selection uses again.
const SCRATCH = {ids: null, keys: null};

function scratch(name, Numbers, length) {
  if (!SCRATCH[name] || SCRATCH[name].length < length) SCRATCH[name] = new Numbers(length);
  return SCRATCH[name];
}

// Walk over images that are loaded. Returns {ids, counts}: the numbers of those that are shown, in their order.
function select(chunks) {
  const counts = emptyCounts(), most = chunks.length > FEW_CHUNKS ? IMAGES : chunks.reduce((sum, chunk) => sum + chunk.images, 0);
  const ids = scratch("ids", Uint32Array, most), keys = state.sort === "name" ? null : scratch("keys", Float64Array, most);
  const isOn = new Uint8Array(CLASS_COUNT).fill(state.classes ? 0 : 1);
  for (const id of state.classes ?? []) isOn[id] = 1;
  const search = state.search.toLowerCase(), kind = KINDS.indexOf(state.kind) + 1;
  const inFolder = INDEX.folders.map(([path]) => state.folder === null || path === state.folder || path.startsWith(`${state.folder}/`));
  let found = 0;
  for (const {facts, first} of chunks) {
    const matches = search ? matching(facts, search) : null;
    for (let image = 0; image < facts.kinds.length; image++) {
      if (matches && !matches[image]) continue;
      const folder = facts.folders[image], here = inFolder[folder];
      const end = HAS_ONE ? Math.min(facts.offsets[image + 1], facts.offsets[image] + 1) : facts.offsets[image + 1];
      let best = -1, visible = 0;
      for (let object = facts.offsets[image]; object < end; object++) {
        const id = facts.classIds[object], score = facts.scores[object];
        if (here && score >= state.score) counts.classes[id]++;
        if (!isOn[id]) continue;
        if (here) counts.histogram[score / 100 | 0]++;
        if (score > best) best = score;
        if (score >= state.score) visible++;
      }
      const failure = facts.kinds[image];
      const isNearly = !failure && !visible && best >= 0 && best >= state.score - INDEX.nearly;
      const tab = failure ? "failed" : visible ? "hits" : "empty";
      if (REFERENCE) differ(facts, image, end, isOn);
      const isShown = (state.tab === "all" || state.tab === tab || (state.tab === "nearly" && isNearly) || differing[state.tab] > 0)
        && (!kind || kind === failure);
      if (isShown) counts.folders[folder]++;
      if (!here) continue;
      if (failure) counts.kinds[failure - 1]++;
      if (kind && kind !== failure) continue;
      counts.tabs.all++;
      counts.tabs[tab]++;
      if (isNearly) counts.tabs.nearly++;
      if (REFERENCE) countDifferences(counts);
      if (!isShown) continue;
      if (keys) keys[found] = orderKey(first + image, best, visible) * 2 ** 32 + first + image;
      ids[found++] = first + image;
    }
  }
  if (!keys) return {ids: ids.subarray(0, found), counts};
  keys.subarray(0, found).sort();
  for (let place = 0; place < found; place++) ids[place] = keys[place] % 2 ** 32;
  return {ids: ids.subarray(0, found), counts};
}

function countDifferences({tabs, objects}) {
  for (const tab of Object.keys(DIFFERENCES)) if (differing[tab]) tabs[tab]++;
  objects[0] += differing.extra;
  objects[1] += differing.missing;
  objects[2] += differing.moved;
  objects[3] += differing.same;
}

// The smallest comes first; below 2^20. Images of the same key stay in the order of their names.
function orderKey(id, best, visible) {
  if (state.sort === "best") return 10000 - best;
  if (state.sort === "near") return best < 0 ? 99999 : Math.abs(best - state.score);
  if (state.sort === "most") return 99999 - Math.min(visible, 99999);
  let mixed = Math.imul(id + 1, 0x9e3779b1) ^ Math.imul(state.seed, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
  return (mixed ^ (mixed >>> 13)) >>> 12;
}
