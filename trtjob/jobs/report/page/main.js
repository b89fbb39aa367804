// A change of the state leads to a new view; a later one stops what an earlier one is still reading for.
//   view: ids: the images that are shown, but for the first `skipped`; total: how many there are
let view = {ids: new Uint32Array(0), skipped: 0, total: 0};
let turns = 0;
const SHOW_EVERY_MS = 700;

async function change(changes) {
  if (!("page" in changes) && !("image" in changes)) state.page = 0;
  if (changes.sort === "random") state.seed = 1 + Math.floor(Math.random() * 1e6);
  Object.assign(state, changes);
  writeAddress();
  await show();
}

async function show() {
  const turn = ++turns;
  byId("search").value = state.search;
  byId("sort").value = state.sort;
  try {
    if (isCounted()) await showCounted(turn); else await showFiltered(turn);
    if (turn === turns) byId("trouble").hidden = true;
  } catch (error) {
    if (turn !== turns) return;
    byId("trouble").textContent = error.message;
    byId("trouble").hidden = false;
  } finally {
    if (turn === turns) byId("progress").hidden = true;
  }
}

async function showCounted(turn) {
  const counts = indexCounts();
  state.page = Math.min(state.page, Math.max(0, Math.ceil(counts.tabs[state.tab] / PAGE_SIZE) - 1));
  const {wanted, skipped} = chunksOfPage();
  await Promise.all(wanted.map(loadData));
  if (turn === turns) await showView(turn, {ids: select(wanted).ids, skipped, total: counts.tabs[state.tab]}, counts);
}

async function showFiltered(turn) {
  const missing = CHUNKS.filter(chunk => !chunk.facts);
  let shownAt = performance.now();
  for (let next = 0; next < missing.length; next += AT_ONCE) {
    showProgress(CHUNKS.length - missing.length + next);
    await Promise.all(missing.slice(next, next + AT_ONCE).map(loadData));
    if (turn !== turns) return;
    if (performance.now() - shownAt > SHOW_EVERY_MS) {
      await showLoaded(turn);
      shownAt = performance.now();
    }
  }
  await showLoaded(turn);
}

async function showLoaded(turn) {
  const {ids, counts} = select(CHUNKS.filter(chunk => chunk.facts));
  const isWhole = CHUNKS.every(chunk => chunk.facts);
  if (isWhole) state.page = Math.min(state.page, Math.max(0, Math.ceil(ids.length / PAGE_SIZE) - 1));
  await showView(turn, {ids, skipped: 0, total: ids.length}, counts);
}

async function showView(turn, found, counts) {
  view = found;
  showPanel(counts);
  showTabs(counts);
  if (REFERENCE) showReference(counts.objects);
  byId("count").textContent = `${asNumber(view.total)} ${view.total === 1 ? "image" : "images"}`;
  await showGrid(turn);
}

function showProgress(read) {
  Object.assign(byId("progress"), {max: CHUNKS.length, value: read, hidden: false});
}

const isPlain = event => !event.ctrlKey && !event.metaKey && !event.altKey;
const isTyping = target => target.matches?.("input:not([type=checkbox], [type=range]), select, textarea");

function listen() {
  byId("search").addEventListener("input", event => change({search: event.target.value}));
  byId("sort").addEventListener("change", event => change({sort: event.target.value}));
  byId("show-filters").addEventListener("click", () => {
    const isOpen = byId("filters").classList.toggle("is-open");
    byId("show-filters").setAttribute("aria-expanded", String(isOpen));
  });
  byId("skip").addEventListener("click", event => { event.preventDefault(); byId("grid").focus(); });
  for (const button of document.querySelectorAll("[data-download]")) button.addEventListener("click", () => startDownload(button.dataset.download));
  document.addEventListener("keydown", event => {
    if (viewer.open || isTyping(event.target) || !isPlain(event)) return;
    if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
    moveFocus(event);
  });
  addEventListener("hashchange", restore);
}

// A list of all that is shown needs every chunk.
async function startDownload(what) {
  byId("downloads").open = false;
  if (what === "list" && view.ids.length < view.total) {
    const turn = ++turns;
    await showFiltered(turn);
    if (turn !== turns) return;
    byId("progress").hidden = true;
  }
  DOWNLOADS[what]();
}

async function restore() {
  readAddress();
  const id = state.image;
  if (id === null && viewer.open) viewer.close();
  await show();
  if (id === null) return;
  await loadData(chunkOf(id));
  const found = view.ids.indexOf(id);
  await showImage(id, found < 0 ? -1 : found + view.skipped);
}

readMarks();
buildPanel();
buildTabs();
buildViewer();
buildReference();
listen();
restore();
