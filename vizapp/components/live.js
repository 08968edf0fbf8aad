// The camera of the browser, and what the app answers to its frames. data: {side: pixels of the shorter side of a frame, name: of what is
// shown, and about the frame that is answered, if there is one: number, and refused: a sentence, or some of bars: [{name, share}], picture:
// data URI, over: [top, left, bottom, right] where it lies over the frame, smooth, box: the part that the network sees, words}. Boxes are in
// shares of the frame.
// One frame at a time is on its way: trigger "frame", {number, jpeg}. Of those that the camera gives meanwhile the newest is next; the
// others are dropped. Freeze sends the number of the frame that was answered last: trigger "freeze".

const QUALITY = 0.92, RECENT = 20;  // of the JPEG; frames over which the rate is measured
const LOST = 60000, AGAIN = 1000;  // milliseconds after which a frame counts as lost, and between two frames that are refused
const INSECURE = "Browsers give the camera to pages with https and to localhost only. Open the app under such an address.";
const BUSY = "The camera cannot be opened because another program uses it. Close that program, then switch Live off and on.";
const NONE = "No camera was found. Connect one, then switch Live off and on.";
const REFUSED = "The browser may not use the camera. Allow it beside the address of this page, then switch Live off and on.";
const PROBLEMS = { NotAllowedError: REFUSED, SecurityError: REFUSED, NotFoundError: NONE, OverconstrainedError: NONE, NotReadableError: BUSY, AbortError: BUSY };

function build(root) {
  const live = { number: Date.now(), away: null, last: null, dropped: 0, times: [], pause: 0, alive: true, sent: document.createElement("canvas") };
  const sides = element("div", "sides", root), left = element("div", "side", sides), right = element("div", "side answer", sides);
  const picture = element("div", "picture", left);
  live.video = element("video", "", picture);
  Object.assign(live.video, { muted: true, playsInline: true, ariaLabel: "The camera" });
  live.box = element("div", "box", picture);
  const below = element("div", "below", left);
  live.freeze = element("button", "freeze", below, "Freeze");
  Object.assign(live.freeze, { type: "button", disabled: true, title: "Makes the frame that was answered last the photo of all pages (Space)", onclick: () => freeze(live) });
  live.rate = element("span", "rate", below, "");
  live.problem = element("p", "problem", right);
  live.problem.setAttribute("role", "status");
  live.shown = element("canvas", "", right);
  live.shown.setAttribute("role", "img");
  live.list = element("ol", "", right);
  live.words = element("p", "words", right);
  live.tell = (sentence) => { if (live.problem.textContent !== sentence) live.problem.textContent = sentence; };
  live.keyed = (event) => {
    const at = event.composedPath()[0];
    if (event.key !== " " || event.repeat || at.closest?.("input, textarea, select, button, a, [role], [tabindex], [contenteditable]")) return;
    event.preventDefault();
    freeze(live);
  };
  live.seen = () => document.hidden ? close(live) : open(live);
  document.addEventListener("visibilitychange", live.seen);
  document.addEventListener("keydown", live.keyed);
  return live;
}

async function open(live) {
  if (live.stream || live.opening || !live.alive || document.hidden) return;
  if (!navigator.mediaDevices) return live.tell(INSECURE);
  live.opening = true;
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 480 }, frameRate: { ideal: 15 } } });
    live.stream = stream;
    if (!live.alive || document.hidden) return close(live);
    stream.getVideoTracks()[0].onended = () => { close(live); live.tell(NONE); };
    live.video.srcObject = stream;
    live.tell("");
    await live.video.play();
    next(live);
  } catch (error) {
    if (live.stream) return;  // closed while it was opened
    live.tell(PROBLEMS[error.name] || `The camera cannot be opened (${error.name}). Switch Live off and on.`);
  } finally {
    live.opening = false;
  }
}

function close(live) {
  live.stream?.getTracks().forEach((track) => track.stop());
  live.stream = live.video.srcObject = null;
}

// Called for each frame of the camera.
function next(live) {
  if (!live.stream) return;
  const look = () => {
    if (live.fresh) live.dropped += 1;
    live.fresh = true;
    send(live);
    next(live);
  };
  if (live.video.requestVideoFrameCallback) live.video.requestVideoFrameCallback(look);
  else setTimeout(look, 40);
}

function send(live) {
  const now = performance.now(), { videoWidth, videoHeight } = live.video;
  if (!live.stream || !live.fresh || live.frozen || !videoWidth || now < live.pause || (live.away !== null && now - live.since < LOST)) return;
  const scale = Math.min(1, live.data.side / Math.min(videoWidth, videoHeight));
  live.sent.width = Math.round(videoWidth * scale);
  live.sent.height = Math.round(videoHeight * scale);
  live.sent.getContext("2d").drawImage(live.video, 0, 0, live.sent.width, live.sent.height);
  [live.fresh, live.away, live.since] = [false, (live.number += 1), now];
  live.trigger("frame", { number: live.away, jpeg: live.sent.toDataURL("image/jpeg", QUALITY) });
}

function freeze(live) {
  if (live.last === null || live.frozen) return;
  live.frozen = live.freeze.disabled = true;
  live.trigger("freeze", live.last);
}

async function answered(live, data) {
  const now = performance.now();
  live.tell(data.refused || "");
  live.shown.hidden = !data.picture;
  if (data.refused) live.pause = now + AGAIN;
  else await draw(live, data);
  if (!live.alive) return;
  [live.away, live.last] = [null, data.refused ? live.last : data.number];
  live.times = [...live.times, now].slice(-RECENT);
  const rate = 1000 * (live.times.length - 1) / Math.max(now - live.times[0], 1);
  live.rate.textContent = `${rate.toFixed(1)} frames/s, ${live.dropped} dropped`;
  live.freeze.disabled = live.last === null || !!live.frozen;
  Object.assign(live.shown.dataset, { number: data.number, answered: Number(live.shown.dataset.answered || 0) + 1 });
  send(live);
}

async function draw(live, data) {
  const place = ([top, left, bottom, right], width, height) => [left * width, top * height, (right - left) * width, (bottom - top) * height];
  if (data.picture) {
    const image = new Image(), pen = live.shown.getContext("2d");
    image.src = data.picture;
    await image.decode();
    const [width, height] = data.over ? [2 * live.sent.width, 2 * live.sent.height] : [image.width, image.height];
    [live.shown.width, live.shown.height] = [width, height];
    if (data.over) pen.drawImage(live.sent, 0, 0, width, height);
    pen.imageSmoothingEnabled = !!data.smooth;
    pen.globalAlpha = data.over ? 0.8 : 1;
    pen.drawImage(image, ...place(data.over || [0, 0, 1, 1], width, height));
    live.shown.classList.toggle("coarse", !data.over && width < 300);
  }
  const [left, top, width, height] = place(data.box, 100, 100);
  Object.assign(live.box.style, { left: `${left}%`, top: `${top}%`, width: `${width}%`, height: `${height}%` });
  live.list.replaceChildren();
  for (const { name, share } of data.bars || []) {
    const item = element("li", "", live.list);
    element("span", "name", item, name);
    element("span", "share", item, percent(share));
    element("i", "", element("div", "bar", item)).style.width = `${100 * share}%`;
  }
  live.words.textContent = data.words || "";
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".root");
  if (!data) return;
  const live = (root.__live ??= build(root));
  [live.data, live.trigger] = [data, setTriggerValue];
  live.shown.setAttribute("aria-label", data.name);
  open(live);
  if (data.number === live.away && live.away !== null) answered(live, data);
  return () => {
    live.alive = false;
    close(live);
    document.removeEventListener("visibilitychange", live.seen);
    document.removeEventListener("keydown", live.keyed);
    root.__live = undefined;
    root.replaceChildren();
  };
}
