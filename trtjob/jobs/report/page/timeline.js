// The time line of the video in which an enlarged frame is: where something was found, and the way to each moment.
const MOST_BARS = 240;

// The frames of a video stand together: their numbers, from the first to behind the last.
async function framesOf(id, file) {
  const isOfIt = async frame => {
    if (frame < 0 || frame >= IMAGES) return false;
    const chunk = chunkOf(frame);
    await loadData(chunk);
    chunk.lines ??= namesOf(chunk);
    return chunk.lines[frame - chunk.first].startsWith(`${file}#t=`);
  };
  let first = id, end = id + 1;
  while (await isOfIt(first - 1)) first--;
  while (await isOfIt(end)) end++;
  return [first, end];
}

// What shows of a frame: {score, classId} of its best object, the score -1 where there is none; isFailed.
function bestOf(id) {
  const {facts, first} = chunkOf(id), at = id - first, best = {id, score: -1, classId: 0, isFailed: facts.kinds[at] > 0};
  for (let object = facts.offsets[at]; object < facts.offsets[at + 1]; object++) {
    const score = facts.scores[object];
    if (score >= state.score && score > best.score && isOn(facts.classIds[object])) Object.assign(best, {score, classId: facts.classIds[object]});
  }
  return best;
}

async function showTimeline(image) {
  const section = byId("timeline"), {file, time} = fileOf(image);
  section.hidden = !time;
  if (!time) return;
  const [first, end] = await framesOf(image.id, file);
  if (current !== image) return;
  const count = end - first, bars = Math.min(count, MOST_BARS), found = Array(bars);
  for (let id = first; id < end; id++) {
    const bar = Math.floor((id - first) * bars / count), best = bestOf(id);
    if (!found[bar] || best.score > found[bar].score) found[bar] = best;
  }
  const rank = best => best.isFailed ? 100 : Math.max(0, best.score / 100);
  const now = Math.floor((image.id - first) * bars / count);
  byId("timeline-bars").setAttribute("viewBox", `0 0 ${bars} 100`);
  byId("timeline-bars").replaceChildren(
    shape("rect", {class: "now", x: now, width: 1, y: 0, height: 100}),
    ...found.map((best, bar) => shape("rect", {class: best.isFailed ? "failed" : "", x: bar, width: 1, y: 100 - rank(best), height: rank(best), style: best.isFailed ? {} : {fill: brightColour(best.classId)}})));
  const hits = found.filter(best => best.score >= 0).length;
  byId("timeline-bars").setAttribute("aria-label", `${asNumber(count)} frames of the video; something was found in ${asNumber(hits)} of ${asNumber(bars)} parts`);
  byId("timeline-bars").onclick = event => {
    const {left, width} = byId("timeline-bars").getBoundingClientRect();
    showMoment(found[Math.min(bars - 1, Math.max(0, Math.floor((event.clientX - left) / width * bars)))].id);
  };
  Object.assign(byId("moment"), {min: 0, max: count - 1, value: image.id - first, oninput: event => showMoment(first + Number(event.target.value))});
  byId("moment").setAttribute("aria-valuetext", `${Number(time)} s`);
  byId("moment-text").textContent = `${Number(time)} s`;
}

function showMoment(id) {
  const found = view.ids.indexOf(id);
  return showImage(id, found < 0 ? -1 : found + view.skipped);
}
