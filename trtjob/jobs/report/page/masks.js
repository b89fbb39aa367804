// The pixels of objects, of COCO's compressed run lengths (rleFrString in cocoapi's common/maskApi.c): column by column, the zeros first.
const MOST_PIXELS_ACROSS = {small: 320, large: 1600};

function runsOf(counts) {
  const runs = [];
  for (let at = 0; at < counts.length;) {
    let run = 0, shift = 0, code;
    do {
      code = counts.charCodeAt(at++) - 48;
      run |= (code & 0x1f) << shift;
      shift += 5;
    } while (code & 0x20);
    if (code & 0x10) run |= -1 << shift;
    runs.push(runs.length > 2 ? run + runs.at(-2) : run);
  }
  return runs;
}

// A canvas with the masks of objects, the best on top; null where none has one. Large images are drawn with every so-manieth column.
function maskLayer({width, height}, objects, {isSmall}) {
  const masked = objects.filter(object => object.mask);
  if (!masked.length) return null;
  const step = Math.ceil(Math.max(width, height) / MOST_PIXELS_ACROSS[isSmall ? "small" : "large"]);
  const canvas = element("canvas", {class: "masks", width: Math.ceil(width / step), height: Math.ceil(height / step), "aria-hidden": "true"});
  const context = canvas.getContext("2d");
  for (const {mask, classId} of masked.reverse()) {
    context.fillStyle = brightColour(classId);
    let pixel = 0;
    runsOf(mask).forEach((run, number) => {
      if (number % 2) fillRun(context, pixel, run, {width, height, step});
      pixel += run;
    });
  }
  return canvas;
}

function fillRun(context, pixel, run, {width, height, step}) {
  for (const end = pixel + run; pixel < end;) {
    const column = Math.floor(pixel / height), row = pixel % height, length = Math.min(end - pixel, height - row);
    if (column >= width) return;
    if (column % step === 0) context.fillRect(column / step, row / step, 1, length / step);
    pixel += length;
  }
}
