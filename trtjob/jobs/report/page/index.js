// What the page knows before it loads any data. Scores are whole ten-thousandths everywhere.
//   threshold   the score from which on an object counts at first; nearly: how far below it is "nearly"
//   labels      [class id, name, objects counted at the threshold], the most frequent first
//   folders     [path, images, with hits, failed]
//   chunks      [files, images, hits, nearly, failed], in the order of the names; files: of its data and of its details; where there is a
//               reference, also the images in which an object is more, is missing, and has moved
//   reference   what the objects are held against, or null. kind: "truth", labels of people, or "job", another one; name; images: those that it
//               has; objects: how many are more, are missing, have moved, and are in both, at the threshold. Of the truth: ap, ap50; curve: the
//               precision at 101 recalls; classes: [class id, true objects, ap, ap50]; curves of some, by class id; confusion:
//               [true class, found class, count], -1: none, of some classes, of objects of a score from confusion_from on; unknown: classes that the model has not
//   is_exclusive  an image has one class, the best of a classifier; has_pages: names may end in the number of a page
//   originals   the way from here to each place of images, by its name; null where there is none; addresses: of those in buckets and on the web;
//               has_frames: names may be of frames of videos; has_video_copies: which have annotated copies, too; annotate: which images have a copy,
//               under their own name where it ends in one of copied_suffixes; thumbnails: the folder of what may be there, null for nothing
const INDEX = JSON.parse(document.getElementById("index").textContent);

const IS_CLASSIFIER = INDEX.task === "classify";
const HAS_ONE = INDEX.is_exclusive;
const KINDS = Object.keys(INDEX.summary.failures);
const REFERENCE = INDEX.reference;
const DIFFERENCES = {null: {}, truth: {extra: "False positives", missing: "Misses"}, job: {extra: "Appeared", missing: "Went", moved: "Moved"}}[REFERENCE && REFERENCE.kind];
const TABS = {hits: IS_CLASSIFIER ? "At this score" : "With detections", empty: IS_CLASSIFIER ? "Below it" : "Empty",
  nearly: "Nearly", ...DIFFERENCES, failed: "Failed", all: "All"};
const LABELS = new Map(INDEX.labels.map(([id, name]) => [id, name]));
const CLASS_COUNT = 1 + Math.max(-1, ...LABELS.keys());

const asScore = score => (score / 10000).toFixed(4).replace(/0{1,2}$/, "");
// Cut and not rounded: what is below the threshold must not look as if it were not.
const asShortScore = score => (Math.floor(score / 100) / 100).toFixed(2);
const asNumber = number => number.toLocaleString("en");
// Hues far apart for neighbours. Of even lightness, so that white stands out on each.
const darkColour = id => `oklch(0.48 0.14 ${id * 137.5 % 360})`;
const brightColour = id => `oklch(0.8 0.19 ${id * 137.5 % 360})`;
