// What the objects are held against: labels of people, or another job.
const IS_TRUTH = REFERENCE?.kind === "truth";

const missingOf = image => image.others.filter(other => other.score >= state.score && isOn(other.classId) && !isThere(other.partner));

// What became of an object: a sign, a word, and what it is drawn as.
function verdict(object) {
  if (!REFERENCE || object.score < state.score) return null;
  if (!isThere(object.partner)) return IS_TRUTH ? ["✗", "wrong"] : ["+", "appeared"];
  if (object.partner === NOT_JUDGED) return ["", "not judged"];
  if (object.isMoved && !IS_TRUTH) return ["~", "moved"];
  return IS_TRUTH ? ["✓", "right"] : ["", "the same"];
}

// Whether an object is one for which the tab is; the others are drawn faintly.
function isMeant(object) {
  if (state.tab === "extra") return !isThere(object.partner);
  if (state.tab === "moved") return object.isMoved && isThere(object.partner);
  return state.tab !== "missing";
}

const MISSING = IS_TRUTH ? ["missed", "misses"] : ["−", "went"];

function missingChip(other) {
  return element("span", {class: "chip is-low", title: shown(labelOf(other))}, `${MISSING[0]} ${labelOf(other)}`);
}

// For those who hear the page.
function countedDifferences(image) {
  if (!REFERENCE || image.failure) return "";
  const extra = counted(visibleObjects(image).filter(object => !isThere(object.partner))), missing = counted(missingOf(image));
  return (extra && `; ${DIFFERENCES.extra.toLowerCase()}: ${extra}`) + (missing && `; ${MISSING[1]}: ${missing}`);
}

const asShare = share => share === null ? "–" : share.toFixed(3);

function buildReference() {
  byId("reference").hidden = !REFERENCE;
  byId("toggle-others").hidden = !REFERENCE;
  byId("others-key").hidden = !REFERENCE;
  byId("toggle-others").textContent = IS_TRUTH ? "Truth" : "Other job";
  if (!REFERENCE) return;
  byId("reference-heading").textContent = shown(IS_TRUTH ? `Held against ${REFERENCE.name}` : `Compared with ${REFERENCE.name} (${REFERENCE.model})`);
  byId("reference-more").hidden = !IS_TRUTH || REFERENCE.ap === null;
  const notes = [`${asNumber(REFERENCE.images)} images are in both`];
  if (REFERENCE.only_here) notes.push(`${asNumber(REFERENCE.only_here)} only in this job, which are not judged`);
  if (REFERENCE.only_there) notes.push(`${asNumber(REFERENCE.only_there)} only in the other`);
  if (REFERENCE.unknown?.length) notes.push(`classes that the model does not have: ${REFERENCE.unknown.join(", ")}`);
  byId("reference-notes").textContent = shown(`${notes.join("; ")}.`);
  if (byId("reference-more").hidden) return;
  buildCurve();
  byId("reference-classes").append(...classFigures());
  byId("confusion").append(...confusionRows());
  byId("confusion-caption").textContent = `What was found, in columns, where what truly is, in rows: objects of a score of ${asScore(REFERENCE.confusion_from)} and more`;
}

function showReference([extra, missing, moved, same]) {
  if (IS_TRUTH) {
    const share = (part, rest) => part + rest ? part / (part + rest) : null;
    const precision = share(same, extra), recall = share(same, missing);
    const f1 = precision + recall ? 2 * precision * recall / (precision + recall) : null;
    showFigures({AP50: asShare(REFERENCE.ap50), "AP50:95": asShare(REFERENCE.ap), Precision: asShare(precision), Recall: asShare(recall), F1: asShare(f1),
      Right: asNumber(same), "False positives": asNumber(extra), Misses: asNumber(missing)});
  } else showFigures({"The same": asNumber(same - moved), Appeared: asNumber(extra), Went: asNumber(missing), Moved: asNumber(moved)});
}

function showFigures(figures) {
  byId("figures").replaceChildren(...Object.entries(figures).flatMap(([name, value]) => [element("div", {}, element("dt", {}, name), element("dd", {}, value))]));
}

// -- curves, classes and confusion of the truth ---------------------------------------------------------------------------------------------

const CURVE = {width: 300, height: 210, left: 34, bottom: 30, top: 8, right: 8};

function buildCurve() {
  const {width, height, left, bottom, top, right} = CURVE, svg = byId("curve");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (const share of [0, .5, 1]) {
    const [x, y] = [xOf(share), yOf(share)];
    svg.append(shape("line", {class: "grid-line", x1: left, x2: width - right, y1: y, y2: y}), shape("line", {class: "grid-line", x1: x, x2: x, y1: top, y2: height - bottom}),
      shape("text", {x: left - 5, y: y + 4, "text-anchor": "end"}, share), shape("text", {x, y: height - bottom + 14, "text-anchor": "middle"}, share));
  }
  svg.append(shape("text", {x: (left + width - right) / 2, y: height - 2, "text-anchor": "middle"}, "recall"),
    shape("text", {transform: `translate(10 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle"}, "precision"),
    shape("polyline", {class: "curve", points: pointsOf(REFERENCE.curve)}), shape("polyline", {class: "curve one", id: "curve-of-one", points: ""}));
  svg.setAttribute("aria-label", "Precision by recall at an overlap of 0.5, the mean of all classes");
}

const xOf = recall => CURVE.left + recall * (CURVE.width - CURVE.left - CURVE.right);
const yOf = precision => CURVE.height - CURVE.bottom - precision * (CURVE.height - CURVE.bottom - CURVE.top);
const pointsOf = curve => curve.map((precision, recall) => `${xOf(recall / 100).toFixed(1)},${yOf(precision).toFixed(1)}`).join(" ");

function classFigures() {
  return REFERENCE.classes.map(([id, count, ap, ap50]) => {
    const name = LABELS.get(id) ?? `class ${id}`, curve = REFERENCE.curves[id];
    const choose = element("button", {type: "button", class: "choice", "aria-pressed": "false", onclick: event => showCurve(event.currentTarget, id, curve)}, name);
    return element("tr", {}, element("th", {scope: "row"}, curve ? choose : name),
      ...[asNumber(count), asShare(ap50), asShare(ap)].map(value => element("td", {class: "number"}, value)));
  });
}

function showCurve(button, id, curve) {
  const isOn = button.getAttribute("aria-pressed") === "true";
  for (const other of byId("reference-classes").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button && !isOn));
  byId("curve-of-one").setAttribute("points", isOn ? "" : pointsOf(curve));
  byId("curve-note").textContent = isOn ? "" : shown(`(dashed: ${LABELS.get(id)})`);
}

const NOTHING = -1;

// A table, the classes first that are in it most.
function confusionRows() {
  const totals = new Map();
  for (const [truly, found, count] of REFERENCE.confusion) for (const id of new Set([truly, found])) if (id !== NOTHING) totals.set(id, count + (totals.get(id) ?? 0));
  const ids = [...totals].sort((a, b) => b[1] - a[1]).map(([id]) => id);
  const cells = new Map(REFERENCE.confusion.map(([truly, found, count]) => [`${truly} ${found}`, count]));
  const most = Math.max(1, ...REFERENCE.confusion.map(([, , count]) => count));
  const name = id => LABELS.get(id) ?? `class ${id}`;
  const head = element("tr", {}, element("td", {}), ...ids.map(id => element("th", {scope: "col"}, name(id))), element("th", {scope: "col"}, "missed"));
  const rows = [...ids, NOTHING].map(truly => element("tr", {}, element("th", {scope: "row"}, truly === NOTHING ? "nothing" : name(truly)),
    ...[...ids, NOTHING].map(found => {
      const count = cells.get(`${truly} ${found}`) ?? 0, strength = Math.round(45 * Math.sqrt(count / most));
      const colour = truly === found ? "var(--right)" : "var(--wrong)";
      return element("td", {class: "number", style: count ? {background: `color-mix(in srgb, ${colour} ${strength}%, var(--page))`} : {}}, count ? asNumber(count) : "");
    })));
  return [element("thead", {}, head), element("tbody", {}, ...rows)];
}
