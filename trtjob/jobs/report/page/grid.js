// The tabs, the images of one page, and the way to the other pages.
const tabButtons = new Map();

function buildTabs() {
  for (const [tab, name] of Object.entries(TABS)) {
    const button = element("button", {type: "button", onclick: () => change({tab, kind: tab === "failed" ? state.kind : null})});
    byId("tabs").append(button);
    tabButtons.set(tab, {button, name});
  }
}

function showTabs(counts) {
  for (const [tab, {button, name}] of tabButtons) {
    button.textContent = `${name} ${asNumber(counts.tabs[tab])}`;
    button.setAttribute("aria-pressed", String(state.tab === tab));
  }
}

function cardName(image) {
  if (image.failure) return shown(`${image.name}: failed, ${image.failure.join(" ")}`);
  const found = counted(visibleObjects(image)), nearly = counted(nearlyVisible(image));
  return shown(`${image.name}: ${found || (nearly ? `nearly ${nearly}` : "nothing found")}${countedDifferences(image)}`);
}

function card(image, position) {
  const visible = visibleObjects(image), objects = visible.length ? visible : nearlyVisible(image), missing = missingOf(image), most = 4;
  const button = element("button", {type: "button", class: "open", "data-image": image.id, "aria-label": cardName(image), onclick: () => openViewer(position)},
    picture(image, objects, missing, {isSmall: true}));
  const found = ordered(objects).map(chip), missed = missing.map(missingChip);
  const all = state.tab === "missing" ? [...missed, ...found] : [...found, ...missed], chips = all.slice(0, most);
  if (all.length > most) chips.push(element("span", {class: "soft more"}, `and ${all.length - most} more`));
  const caption = element("div", {class: "caption"}, ...chips, element("span", {class: "name"}, image.name), element("span", {class: "badge"}, markBadge(image.name)));
  button.addEventListener("keydown", event => {
    const mark = isPlain(event) ? markOfKey(event.key.toLowerCase()) : undefined;
    if (mark === undefined) return;
    event.stopPropagation();
    setMark(image.name, mark);
    showBadge(image);
  });
  return element("li", {class: "card"}, button, caption);
}

// Those first for which the tab is.
const ordered = objects => [...objects].sort((a, b) => isMeant(b) - isMeant(a));

function showBadge(image) {
  byId("grid").querySelector(`[data-image="${image.id}"] + .caption .badge`)?.replaceChildren(...[markBadge(image.name)].filter(Boolean));
}

async function showGrid(turn) {
  const first = state.page * PAGE_SIZE - view.skipped;
  const ids = view.ids.slice(first, first + PAGE_SIZE);
  await Promise.all([...new Set(Array.from(ids, chunkOf))].map(loadDetails));
  const images = await Promise.all(Array.from(ids, imageAt));
  if (turn !== turns) return;
  byId("grid").replaceChildren(...images.map((image, number) => card(image, state.page * PAGE_SIZE + number)));
  showPages();
}

function showPages() {
  const last = Math.max(0, Math.ceil(view.total / PAGE_SIZE) - 1);
  const near = [0, 1, state.page - 2, state.page - 1, state.page, state.page + 1, state.page + 2, last - 1, last];
  const numbers = [...new Set(near.filter(page => page >= 0 && page <= last))].sort((a, b) => a - b);
  const nodes = [turnButton("Back", state.page - 1, state.page > 0)];
  numbers.forEach((page, place) => {
    if (place && page > numbers[place - 1] + 1) nodes.push(element("span", {class: "soft"}, "…"));
    nodes.push(element("button", {type: "button", "aria-label": `Page ${page + 1}`, "aria-pressed": String(page === state.page), onclick: () => turnTo(page)}, asNumber(page + 1)));
  });
  nodes.push(turnButton("Next", state.page + 1, state.page < last));
  byId("pages").replaceChildren(...nodes);
  byId("pages").hidden = last === 0;
}

const turnButton = (name, page, isPossible) => element("button", {type: "button", disabled: !isPossible, onclick: () => turnTo(page)}, name);

async function turnTo(page) {
  await change({page});
  byId("grid").focus({preventScroll: true});
  scrollTo(0, 0);
}

// Arrows lead from image to image.
function moveFocus(event) {
  const buttons = [...byId("grid").querySelectorAll(".open")], at = buttons.indexOf(document.activeElement);
  if (at < 0) return;
  const columns = getComputedStyle(byId("grid")).gridTemplateColumns.split(" ").length;
  const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns}[event.key];
  if (!step || !buttons[at + step]) return;
  event.preventDefault();
  buttons[at + step].focus();
}
