// What the page knows before it loads any data. Scores are whole ten-thousandths everywhere.
//   threshold   the score from which on an object counts at first; nearly: how far below it is "nearly"
//   labels      [class id, name, objects counted at the threshold], the most frequent first
//   folders     [path, images, with hits, failed]
//   chunks      [files, images, hits, nearly, failed], in the order of the names; files: of its data and of its details
//   is_exclusive  an image has one class, the best of a classifier; has_pages: names may end in the number of a page
//   originals   the way from here to each place of images, by its name; null where there is none; annotate: which images have a copy,
//               under their own name where it ends in one of copied_suffixes; thumbnails: the folder of what may be there, null for nothing
const INDEX = JSON.parse(document.getElementById("index").textContent);

const IS_CLASSIFIER = INDEX.task === "classify";
const HAS_ONE = INDEX.is_exclusive;
const KINDS = Object.keys(INDEX.summary.failures);
const TABS = {hits: IS_CLASSIFIER ? "At this score" : "With detections", empty: IS_CLASSIFIER ? "Below it" : "Empty",
  nearly: "Nearly", failed: "Failed", all: "All"};
const LABELS = new Map(INDEX.labels.map(([id, name]) => [id, name]));
const CLASS_COUNT = 1 + Math.max(-1, ...LABELS.keys());

const asScore = score => (score / 10000).toFixed(4).replace(/0{1,2}$/, "");
const asNumber = number => number.toLocaleString("en");
// Hues far apart for neighbours. Of even lightness, so that white stands out on each.
const darkColour = id => `oklch(0.48 0.14 ${id * 137.5 % 360})`;
const brightColour = id => `oklch(0.8 0.19 ${id * 137.5 % 360})`;
