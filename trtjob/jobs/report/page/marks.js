// What a person says of an image: right, wrong or unsure. Kept by the browser, under the job's name, where it may.
const MARKS = {right: ["r", "✓"], wrong: ["w", "✗"], unsure: ["u", "?"]};
const MARKS_KEY = `trtjob-marks:${INDEX.job}`;
const marks = new Map();

function readMarks() {
  try {
    for (const [name, mark] of Object.entries(JSON.parse(localStorage.getItem(MARKS_KEY) ?? "{}"))) if (Object.hasOwn(MARKS, mark)) marks.set(name, mark);
  } catch { /* a browser that keeps nothing: marks last as long as the page */ }
}

function setMark(name, mark) {
  if (mark) marks.set(name, mark); else marks.delete(name);
  try {
    localStorage.setItem(MARKS_KEY, JSON.stringify(Object.fromEntries(marks)));
  } catch { /* as above */ }
}

// The mark that a key stands for: null clears it, undefined is no mark's key.
function markOfKey(key) {
  if (key === "c") return null;
  return Object.keys(MARKS).find(mark => MARKS[mark][0] === key);
}

function markBadge(name) {
  const mark = marks.get(name);
  return mark ? element("span", {class: `mark mark-${mark}`}, `${MARKS[mark][1]} ${mark}`) : null;
}

function markButtons(name, onMark) {
  return Object.entries(MARKS).map(([mark, [, sign]]) => element("button", {type: "button", "aria-pressed": String(marks.get(name) === mark),
    onclick: () => onMark(marks.get(name) === mark ? null : mark)}, `${sign} ${mark[0].toUpperCase()}${mark.slice(1)}`));
}

const sortedMarks = () => [...marks].sort(([a], [b]) => a < b ? -1 : 1);

const DOWNLOADS = {
  "marks-csv": () => download(`${INDEX.job}-marks.csv`, "text/csv", csv([["image", "mark"], ...sortedMarks()])),
  "marks-json": () => download(`${INDEX.job}-marks.json`, "application/json",
    JSON.stringify({job: INDEX.job, model_sha256: INDEX.model.sha256, marks: sortedMarks().map(([image, mark]) => ({image, mark}))}, null, 1) + "\n"),
  list: () => download(`${INDEX.job}-list.csv`, "text/csv", csv([["image", "best_score", "objects", "mark"], ...listRows()])),
};

function* listRows() {
  let chunk = null, names = [];
  for (const id of view.ids) {
    if (chunk !== chunkOf(id)) names = namesOf(chunk = chunkOf(id));
    const at = id - chunk.first, {offsets, scores, classIds} = chunk.facts;
    const objects = [...scores.subarray(offsets[at], offsets[at + 1])].filter((_, number) => isOn(classIds[offsets[at] + number]));
    const visible = objects.filter(score => score >= state.score).length;
    yield [names[at], objects.length ? asScore(Math.max(...objects)) : "", HAS_ONE ? Math.min(1, visible) : visible, marks.get(names[at]) ?? ""];
  }
}
