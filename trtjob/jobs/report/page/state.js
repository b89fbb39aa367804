// What is looked at. It is written into the address, so that a link shows the same.
//   classes     the ids that are on, null for all; image: the number of the enlarged one, null where none is
const PAGE_SIZE = 60;
const FIRST = {score: INDEX.threshold, classes: null, tab: "hits", folder: null, kind: null, search: "", sort: "name", page: 0, image: null, seed: 1};
const state = {...FIRST};

function address() {
  const words = new URLSearchParams();
  if (state.score !== FIRST.score) words.set("score", state.score / 10000);
  if (state.classes) for (const id of state.classes.size ? state.classes : [""]) words.append("class", LABELS.get(id) ?? "");
  if (state.tab !== FIRST.tab) words.set("tab", state.tab);
  if (state.folder !== null) words.set("folder", state.folder);
  if (state.kind !== null) words.set("kind", state.kind);
  if (state.search) words.set("search", state.search);
  if (state.sort !== FIRST.sort) words.set("sort", state.sort);
  if (state.sort === "random") words.set("seed", state.seed);
  if (state.page) words.set("page", state.page + 1);
  if (state.image !== null) words.set("image", state.image + 1);
  return `#${words}`;
}

function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const number = (name, least, most, otherwise) => {
    const value = Number.parseInt(words.get(name), 10);
    return value >= least && value <= most ? value : otherwise;
  };
  const score = Number.parseFloat(words.get("score"));
  const names = words.getAll("class");
  const known = (name, values, otherwise) => values.includes(words.get(name)) ? words.get(name) : otherwise;
  Object.assign(state, {
    score: score >= 0 && score <= 1 ? Math.round(score * 10000) : FIRST.score,
    classes: names.length ? new Set([...LABELS].filter(([, label]) => names.includes(shown(label))).map(([id]) => id)) : null,
    tab: known("tab", Object.keys(TABS), FIRST.tab),
    folder: words.get("folder"),
    kind: known("kind", KINDS, null),
    search: words.get("search") ?? "",
    sort: known("sort", [...byId("sort").options].map(option => option.value), FIRST.sort),
    seed: number("seed", 1, 2 ** 31, 1),
    page: number("page", 1, 2 ** 31, 1) - 1,
    image: IMAGES ? number("image", 1, IMAGES, 0) - 1 : -1,
  });
  if (state.image < 0) state.image = null;
}

function writeAddress() {
  if (address() !== (location.hash || "#")) history.replaceState(null, "", address());
}
