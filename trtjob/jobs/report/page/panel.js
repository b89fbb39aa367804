// The left side: it is built once, and then only its numbers change.
const LEAST = Math.round(INDEX.min_score * 10000);
const MANY_CLASSES = 15;
const classRows = new Map(), folderRows = [], kindRows = [];
const bars = [];

function buildPanel() {
  byId("source").textContent = shown(INDEX.source);
  byId("about").textContent = shown(`${INDEX.model.name}, ${asNumber(IMAGES)} ${IMAGES === 1 ? "image" : "images"}, ${INDEX.submitted}`);
  byId("incomplete").textContent = shown(INDEX.summary.incomplete);
  byId("incomplete").hidden = !INDEX.summary.incomplete;
  buildScore();
  buildClasses();
  buildFolders();
  buildKinds();
  buildJob();
}

function buildScore() {
  const first = LEAST / 100 | 0;
  byId("histogram").setAttribute("viewBox", `${first} 0 ${101 - first} 100`);
  for (let bar = first; bar <= 100; bar++) {
    bars[bar] = shape("rect", {x: bar + .08, width: .84, y: 100, height: 0});
    byId("histogram").append(bars[bar]);
  }
  Object.assign(byId("score"), {min: LEAST / 100, max: 100, step: 1});
  Object.assign(byId("score-number"), {min: INDEX.min_score, max: 1});
  byId("score").addEventListener("input", event => change({score: Math.round(event.target.value * 100)}));
  byId("score-number").addEventListener("change", event => {
    const score = Math.round(event.target.value * 10000);
    change({score: Math.min(10000, Math.max(LEAST, Number.isFinite(score) ? score : FIRST.score))});
  });
  byId("reset").addEventListener("click", () => change({...FIRST}));
}

function buildClasses() {
  byId("class-section").hidden = !INDEX.labels.length;
  byId("class-heading").textContent = HAS_ONE ? "Best class" : "Classes";
  for (const [id, label] of INDEX.labels) {
    const box = element("input", {type: "checkbox", onchange: () => toggleClass(id)}), count = element("b");
    const only = element("button", {type: "button", class: "only", "aria-label": shown(`Only ${label}`), onclick: () => change({classes: new Set([id])})}, "only");
    const swatch = element("span", {class: "swatch", style: {background: darkColour(id)}});
    const row = element("li", {}, element("label", {}, box, swatch, element("span", {}, label), count), only);
    byId("classes").append(row);
    classRows.set(id, {row, box, count, label: label.toLowerCase()});
  }
  byId("class-all").addEventListener("click", () => change({classes: null}));
  byId("class-none").addEventListener("click", () => change({classes: new Set()}));
  byId("class-search").hidden = INDEX.labels.length <= MANY_CLASSES;
  byId("class-search").addEventListener("input", event => {
    for (const {row, label} of classRows.values()) row.hidden = !label.includes(event.target.value.toLowerCase());
  });
}

function toggleClass(id) {
  const classes = new Set(state.classes ?? LABELS.keys());
  if (!classes.delete(id)) classes.add(id);
  change({classes: classes.size === LABELS.size ? null : classes});
}

function buildFolders() {
  byId("folder-section").hidden = INDEX.folders.length < 2;
  for (const [path] of INDEX.folders) {
    const count = element("b");
    const button = element("button", {type: "button", class: "choice", onclick: () => change({folder: state.folder === path ? null : path})},
      element("span", {}, path || "(not in a folder)"), count);
    byId("folders").append(element("li", {}, button));
    folderRows.push({path, button, count});
  }
}

function buildKinds() {
  byId("kind-section").hidden = !KINDS.length;
  for (const kind of KINDS) {
    const count = element("b");
    const button = element("button", {type: "button", class: "choice", onclick: () => change(state.kind === kind ? {kind: null} : {kind, tab: "failed"})},
      element("span", {}, kind), count);
    byId("kinds").append(element("li", {}, button));
    kindRows.push({kind, button, count});
  }
}

function buildJob() {
  const {summary} = INDEX, list = counts => Object.entries(counts).map(([name, count]) => `${asNumber(count)} ${name}`).join(", ");
  const link = name => element("a", {href: name}, name);
  const facts = [
    ["Job", INDEX.job], ["Model", INDEX.model.name], ["sha256 of the model", INDEX.model.sha256], ["Submitted", INDEX.submitted],
    ["Took", `${asNumber(summary.elapsed_s)} s, from the first submission on`], ["Ran on", list(summary.devices).replace(/^[\d,]+ ([^,]+)$/, "$1")],
    ...(HAS_ONE ? [] : [["Score to count (conf)", INDEX.conf], ["Least score stored", INDEX.min_score]]),
    ...(IS_CLASSIFIER ? [] : [["Overlap of one object (iou)", INDEX.iou]]),
    ["Images", `${asNumber(summary.images)}, ${asNumber(summary.failed)} failed`], ["Not taken", list(summary.ignored)],
    ["Seconds of work, over all threads", Object.entries(summary.busy_s).map(([stage, seconds]) => `${stage} ${asNumber(seconds)}`).join(", ")],
  ];
  for (const [name, value] of facts.filter(([, value]) => value !== "")) byId("job").append(element("dt", {}, name), element("dd", {}, value));
  const files = ["results.jsonl", "errors.jsonl", "summary.json", "job.json"].flatMap(name => [link(name), " "]);
  byId("job").append(element("dt", {}, "Files"), element("dd", {}, ...files), element("dt", {}, "Other formats (coco, yolo, csv and more), beside this page"),
    element("dd", {}, element("code", {}, `trtjob export ${INDEX.job} --format coco`)));
}

function showPanel(counts) {
  const highest = Math.sqrt(Math.max(1, ...counts.histogram));
  bars.forEach((bar, at) => {
    const height = 100 * Math.sqrt(counts.histogram[at]) / highest;
    bar.setAttribute("y", 100 - height);
    bar.setAttribute("height", height);
    bar.setAttribute("class", at * 100 + 99 < state.score ? "off" : "");
  });
  const objects = counts.histogram.reduce((sum, count) => sum + count, 0);
  byId("histogram").setAttribute("aria-label", `How many of ${asNumber(objects)} objects have which score`);
  byId("score").value = state.score / 100;
  byId("score").setAttribute("aria-valuetext", `at least ${asScore(state.score)}`);
  byId("score-number").value = asScore(state.score);
  for (const [id, {box, count}] of classRows) {
    box.checked = isOn(id);
    count.textContent = asNumber(counts.classes[id]);
  }
  folderRows.forEach(({path, button, count}, number) => {
    button.setAttribute("aria-pressed", String(state.folder === path));
    count.textContent = asNumber(counts.folders[number]);
  });
  kindRows.forEach(({kind, button, count}, number) => {
    button.setAttribute("aria-pressed", String(state.kind === kind));
    count.textContent = asNumber(counts.kinds[number]);
  });
}
